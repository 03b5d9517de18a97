"""Many people search at once: sends many requests to a running server at the same time, and says how long they took.

    vmr-search serve INDEX --videos DIR --port 8000
    python benchmarks/search_server.py http://127.0.0.1:8000/ queries.jsonl

Each request has a sentence of its own, so that no answer is kept from before. The client runs on the same machine and
takes processor time of its own.
"""

import argparse
import asyncio
import json
import os
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

from vmr_train.machine import cpu_name


def sentences(path: Path) -> list[str]:
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return list(dict.fromkeys(row["query"] for row in rows))


async def send(client: httpx.AsyncClient, text: str) -> tuple[int, float]:
    start = time.perf_counter()
    answer = await client.get("search", params={"q": text})
    return answer.status_code, time.perf_counter() - start


def processor_s(pid: int) -> float:
    """Seconds of processor time that a process has taken (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(
    address: str, texts: list[str], at_once: int, rounds: int
) -> tuple[Counter[int], list[float]]:
    """How many answers of each status, and the seconds of each request."""
    statuses: Counter[int] = Counter()
    seconds: list[float] = []
    limits = httpx.Limits(max_connections=at_once, keepalive_expiry=1)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=120, trust_env=False) as client:
        await send(client, texts[-1])
        for number in range(rounds):
            wave = texts[number * at_once : (number + 1) * at_once]
            for status, taken in await asyncio.gather(*(send(client, text) for text in wave)):
                statuses[status] += 1
                seconds.append(taken)
    return statuses, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n")[0])
    parser.add_argument("address", help="of the server, http://127.0.0.1:8000/")
    parser.add_argument("queries", type=Path, help="JSON lines with a query each")
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pid", type=int, help="of the server, to say its processor time")
    options = parser.parse_args()
    texts = sentences(options.queries)
    rounds = min(options.rounds, (len(texts) - 1) // options.at_once)
    if rounds < 1:
        parser.error(f"{options.queries}: {len(texts)} sentences, expected more than {options.at_once}")
    before = processor_s(options.pid) if options.pid else 0.0
    statuses, seconds = asyncio.run(measure(options.address, texts, options.at_once, rounds))
    p50, p95 = np.percentile(seconds, [50, 95])
    print(f"{rounds} x {options.at_once} requests at once; {cpu_name()}, {os.cpu_count()} processors")
    print("status  " + ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items())))
    print(f"wall    p50 {p50:.3f} s, p95 {p95:.3f} s, longest {max(seconds):.3f} s")
    if options.pid:
        print(
            f"server  {(processor_s(options.pid) - before) / len(seconds) * 1000:.1f} ms of processor time each"
        )


if __name__ == "__main__":
    main()
