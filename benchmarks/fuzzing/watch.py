"""Runs cases in child processes and says what nobody should see.

A child takes cases one after the other and dies of what crashes it; its parent then knows the case and starts another
child behind it. All commands of a case run inside the child, where they are watched: their status and what they say,
warnings of ours, processor time, memory, files written outside the case's folder, processes started.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import os
import random
import re
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuzzing.case import Call, Case, entry_point

SECONDS = 20  # of processor time per command
# of the clock, after which a child is ended: its time may be spent where no signal is answered
SILENCE_S = 180
MEMORY = 1 << 30  # bytes beyond what a child starts with
LINE = 1500
TEMPORARY = "temporary"
OURS = r"(vmr_common|rgn|cfmr|cdn|leorn|rgnet)(\.|$)"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
FAULT = re.compile(r"Traceback \(most|internal error|Exception ignored|Warning: ")
SHORT_OF_MEMORY = re.compile(
    r"more memory than there is|[Uu]nable to allocate|can't allocate|MemoryError|bad_alloc"
)
STARTED = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.connect",
    "pickle.find_class",
)
CHANGED = (
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.chmod",
    "os.symlink",
    "os.link",
)
RELATIVE = ("os.remove", "os.rename", "os.rmdir")  # perhaps to an open folder

Make = Callable[[random.Random, Path, Path], Case]


@dataclass
class Seen:
    """What running one case showed.

    Attributes:
        number: Of the case.
        statuses: Of its commands, or words where there is no status.
        problem: What nobody should see, in a line; empty where all is well.
        command: The command line that showed it.
        said: The end of its stderr.
        seconds: Most processor time of a command.
        memory: Bytes that the child grew by.
    """

    number: int
    statuses: list[str] = field(default_factory=list)
    problem: str = ""
    command: str = ""
    said: str = ""
    seconds: float = 0.0
    memory: int = 0


class TooSlow(BaseException):
    pass


def _stop(*_: object) -> None:
    raise TooSlow


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Logs to what stderr is now: commands keep the one of their first start."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        pass


class Guard:
    """Hears of everything that Python opens for writing, deletes and starts."""

    def __init__(self) -> None:
        self.folder, self.temporary = "", ""
        self.heard: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event in STARTED:
            self.heard.append(f"{event} {arguments[:2]!r:.200}")
        elif event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & (
                os.O_WRONLY | os.O_RDWR
            )
            if writes and isinstance(path, str | bytes):
                self._judge(event, path)
        elif event in CHANGED:
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                if isinstance(path, str | bytes | os.PathLike):
                    folder = next(
                        (value for value in arguments[1:] if type(value) is int and value >= 3), None
                    )
                    self._judge(event, path, folder if event in RELATIVE else None)

    def _judge(self, event: str, path: Any, folder: int | None = None) -> None:
        base = "" if folder is None else os.readlink(f"/proc/self/fd/{folder}")
        place = os.path.abspath(os.path.join(base, os.fsdecode(path)))
        if not place.startswith((self.folder, self.temporary, "/dev/null")):
            self.heard.append(f"{event} {place}")

    @contextlib.contextmanager
    def over(self, folder: Path) -> Iterator[list[str]]:
        self.heard, self.folder = [], str(folder)
        try:
            yield self.heard
        finally:
            self.folder = ""


def run_here(call: Call) -> tuple[str, str, str]:
    """Status, stdout and stderr of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    main = entry_point(call.program)
    status: Any = None
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("error" if call.warns else "ignore")
            warnings.filterwarnings("error", module=OURS)
            warnings.simplefilter("ignore", ResourceWarning)  # files that the collector closes
            status = main(call.argv())
    except TooSlow:
        status = f"more than {SECONDS} s"
    except BaseException as error:  # what a command lets out is a finding, whatever it is
        status = type(error).__name__
        err.write(traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return str(status), out.getvalue(), err.getvalue()


def problem_of(status: str, out: str, err: str) -> str:
    """Why a user should not get this answer, or nothing."""
    lines = err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if status not in ("0", "2", "130"):
        return f"status {status}"
    if FAULT.search(err):
        return f"status {status}, and: {FAULT.search(err)[0]}"  # type: ignore[index]
    if status == "2" and (len(errors) != 1 or lines[-1] != errors[0] or len(errors[0]) > LINE):
        return "not one line of error"
    if status == "0" and errors:
        return "an error, and status 0"
    if SHORT_OF_MEMORY.search(err):
        return f"wants more than {MEMORY >> 20} MB"
    if CONTROL.search(out) or CONTROL.search(err):
        return "control characters"
    return ""


def _listing(folder: Path, leave_out: str) -> dict[str, tuple[int, int]]:
    """Size and time of everything below a folder."""
    found = {}
    for base, folders, files in os.walk(folder):
        if base == str(folder) and leave_out in folders:
            folders.remove(leave_out)
        for name in [*folders, *files]:
            if name == TEMPORARY:  # used, but left empty
                continue
            status = os.lstat(os.path.join(base, name))
            found[os.path.join(base, name)] = (0 if name in folders else status.st_size, status.st_mtime_ns)
    return found


def _holds(folder: Path, secret: bytes, before: set[Path]) -> Path | None:
    """A file that was written into a folder and holds these bytes, as they are or as float32 numbers."""
    import numpy as np

    secret = secret[8:48]
    forms = [secret, np.frombuffer(secret, np.uint8).astype(np.float32).tobytes()]
    for path in folder.rglob("*"):
        if path not in before and path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            if any(form in content for form in forms):
                return path
    return None


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Child:
    """Runs cases of one kind in a folder: ``case`` is the case's own, everything beside it must stay as it is."""

    def __init__(self, make: Make, kind: str, seed: int, samples: Path, root: Path) -> None:
        self.make, self.kind, self.seed, self.samples, self.root = make, kind, seed, samples, root
        self.guard = Guard()
        self.begin = 0

    def prepare(self) -> None:
        for name in ("home", "work", TEMPORARY):
            (self.root / name).mkdir(parents=True)
        tempfile.tempdir = self.guard.temporary = str(self.root / TEMPORARY)
        (self.root / "home/key").write_bytes(
            b"SECRET KEY OF WHOEVER READS THE FILE, 64 BYTES LONG, NEVER SHOWN"
        )
        os.environ["HOME"] = str(self.root / "home")
        os.chdir(self.root / "work")
        logging.getLogger().handlers[:] = [_Stderr()]
        signal.signal(signal.SIGPROF, _stop)
        with open("/proc/self/statm") as file:
            mapped = int(file.read().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (mapped + MEMORY, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self.begin = _peak()

    def make_case(self, number: int) -> Case:
        """The files of a case, and its commands."""
        folder = self.root / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        with contextlib.redirect_stderr(io.StringIO()):  # HDF5 complains of what it is made to write
            case = self.make(rng_of(self.kind, self.seed, number), folder, self.samples)
            gc.collect()
        signal.setitimer(signal.ITIMER_PROF, 0)
        return case

    def run(self, number: int, case: Case) -> Seen:
        """What the commands of a case show."""
        seen, folder = Seen(number), self.root / "case"
        around, before = _listing(self.root, "case"), set(folder.rglob("*"))
        for call in case.calls:
            start = time.process_time()
            with self.guard.over(folder) as heard:
                status, out, err = run_here(call)
            seen.seconds = max(seen.seconds, time.process_time() - start)
            seen.statuses.append(status)
            problem = problem_of(status, out, err)
            if not call.costs and ("more than" in problem or status == "2"):
                problem = problem if "line" in problem else ""
            if heard:
                problem = f"outside of its folder: {heard[0]}"
            elif _listing(self.root, "case") != around:
                problem = "files beside the case's folder were changed"
            elif case.secret and (path := _holds(folder, case.secret, before)):
                problem = f"{path} holds what lies in a file elsewhere"
            elif lost := case.lost():
                problem = f"a file of somebody else is gone or changed: {lost[0].relative_to(folder)}"
            elif call.warns and status == "0" and err and "highlight scores were cut" not in err:
                problem = problem or "stderr though all is well"
            if problem:
                seen.problem, seen.said = problem, err[-3000:]
                seen.command = " ".join([call.program, *call.argv()])
                break
        seen.memory = _peak() - self.begin
        if seen.memory > MEMORY and not seen.problem and all(call.costs for call in case.calls):
            seen.problem = f"took {seen.memory >> 20} MB"
        return seen


def rng_of(kind: str, seed: int, number: int) -> random.Random:
    """What decides about a case, whatever ran before it."""
    return random.Random(f"{kind} {seed} {number}")


@dataclass
class Campaign:
    """Cases of one kind, run in children one after the other.

    Attributes:
        kind: Its name.
        make: Writes a case.
        seed: Decides about all cases.
        samples: Folder of valid files that only commands can make.
        work: An empty folder.
        kept: Where the files of findings go.
        batch: Cases per child.
    """

    kind: str
    make: Make
    seed: int
    samples: Path
    work: Path
    kept: Path
    batch: int = 250

    def run(self, numbers: range) -> Iterator[Seen]:
        """What each case showed, in order."""
        left = list(numbers)
        while left:
            done = 0
            for seen in self._child(left[: self.batch]):
                yield seen
                done += 1
            left = left[done:]

    def _place(self, number: int) -> Path:
        return self.kept / f"{self.kind}-{number}"

    def _child(self, numbers: list[int]) -> Iterator[Seen]:
        """Cases until all are done or one ended the child."""
        root = self.work / self.kind
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        reading, writing = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if process == 0:
            os.close(reading)
            _serve(Child(self.make, self.kind, self.seed, self.samples, root), numbers, writing, self._place)
        os.close(writing)
        done, made = 0, False
        try:
            for row in _rows(reading):
                made = "made" in row
                if not made:
                    done += 1
                    yield Seen(**row)
        finally:
            os.close(reading)
            ended = _ended(process)
        if done < len(numbers) and ended and not made:
            yield Seen(
                numbers[done], [f"not made ({ended})"]
            )  # the library crashed over what it was to write
        elif done < len(numbers) and ended:
            seen = Seen(numbers[done], [ended], ended)
            keep(root / "case", self._place(seen.number), seen)
            yield seen


def keep(folder: Path, place: Path, seen: Seen) -> None:
    """Copies a case to where it stays, and names that place in its command."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(folder, place, symlinks=True, ignore_dangling_symlinks=True)
    seen.command = seen.command.replace(str(folder), str(place))
    (place / "finding.json").write_text(json.dumps(asdict(seen), indent=1))


def _serve(child: Child, numbers: list[int], writing: int, place: Callable[[int], Path]) -> None:
    """The child's life: never returns."""
    status = 1
    try:
        child.prepare()
        with os.fdopen(writing, "w") as answers:
            for number in numbers:
                case = child.make_case(number)
                answers.write(json.dumps({"made": number}) + "\n")
                answers.flush()
                seen = child.run(number, case)
                if seen.problem:
                    keep(child.root / "case", place(number), seen)
                answers.write(json.dumps(asdict(seen)) + "\n")
                answers.flush()
                if seen.memory > MEMORY // 2:
                    break  # the peak would hide the next one's
            status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


def _rows(reading: int) -> Iterator[dict[str, Any]]:
    """What a child says, until it ends or falls silent."""
    buffer = b""
    while select.select([reading], [], [], SILENCE_S)[0]:
        data = os.read(reading, 1 << 16)
        if not data:
            return
        *lines, buffer = (buffer + data).split(b"\n")
        yield from map(json.loads, lines)


def _ended(process: int) -> str:
    """How a child ended, in words; nothing where all was well."""
    for _ in range(50):  # it has closed its pipe, or is silent
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            break
        time.sleep(0.1)
    else:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return f"no answer within {SILENCE_S} s"
    if os.WIFSIGNALED(status):
        return f"crash: {signal.Signals(os.WTERMSIG(status)).name}"
    return "the fuzzer itself failed" if os.WEXITSTATUS(status) else ""
