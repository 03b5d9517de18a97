"""Writing loses nothing, replaces nothing that is not ours, and reading JSON changes nothing in silence."""

import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from processes import launched
from vmr_common.errors import UserError, quoted
from vmr_common.folder_lock import FolderLock
from vmr_common.io import (
    BLANK_LIMIT,
    atomic_path,
    no_links,
    parse_json,
    read_json,
    read_json_lines,
    read_text,
    sweep_partials,
    write_json_lines,
    write_text,
)
from vmr_common.text_input import opened

HOLD = """
import sys, time
from vmr_common.folder_lock import FolderLock
from vmr_common.io import atomic_path
{block}
    print("holds", flush=True)
    time.sleep(300)
"""


def holder(block: str) -> list[str]:
    return [sys.executable, "-c", HOLD.format(block=block)]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UserError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text(quoted("half") + read_text(tmp_path / "absent"))
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    keeper = os.open(pipe, os.O_RDWR)  # a reader from the first moment on
    try:
        reader = threading.Thread(target=lambda: received.append(os.read(keeper, 100)))
        reader.start()
        write_json_lines(pipe, [{"a": 1}])
        reader.join()
    finally:
        os.close(keeper)
    assert received == [b'{"a": 1}\n']
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert names(tmp_path) == ["pipe"]


def test_a_pipe_that_nobody_reads_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="nobody reads"):
        write_text(tmp_path / "pipe", "x")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a device")
def test_a_device_is_written_to_and_stays_a_device(tmp_path):
    node = tmp_path / "null"
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (tmp_path / "link").symlink_to("null")
    for path in (node, tmp_path / "link"):
        write_text(path, "x")
    assert stat.S_ISCHR(node.stat().st_mode)
    assert (tmp_path / "link").is_symlink()


def test_a_link_is_replaced_and_what_it_points_at_stays(tmp_path):
    (tmp_path / "other").write_text("mine")
    (tmp_path / "a").symlink_to("other")
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "other").read_text() == "mine"
    assert (tmp_path / "a").read_text() == "new"
    assert not (tmp_path / "a").is_symlink()


def test_a_folder_is_not_written_over(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        write_text(tmp_path / "a", "x")


def test_the_next_write_sweeps_what_a_killed_process_left_and_nothing_else(tmp_path):
    block = f"with atomic_path({str(tmp_path / 'a.txt')!r}) as temporary:"
    with launched(holder(block)) as process:
        process.stdout.readline()
        [left] = tmp_path.iterdir()
        write_text(tmp_path / "a.txt", "of a living neighbour")
        assert left.exists()
        process.send_signal(signal.SIGKILL)
    foreign = [
        ".a.txt.partial",
        ".b.txt.0123abcd.partial",
        ".a.txt.0123ABCD.partial",
        "a.txt.0123abcd.partial",
    ]
    for name in foreign:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".a.txt.01234567.partial").symlink_to(".a.txt.partial")
    write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == sorted([*foreign, ".a.txt.01234567.partial", "a.txt"])


def test_sweeping_does_not_enter_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / ".a.0123abcd.partial").touch()
    (tmp_path / "here").symlink_to("there")
    sweep_partials(tmp_path / "here", lambda name: True)
    assert names(tmp_path / "there") == [".a.0123abcd.partial"]
    sweep_partials(tmp_path / "there", lambda name: name == "a")
    assert names(tmp_path / "there") == []


def test_a_folder_is_held_by_one_process_until_it_dies(tmp_path):
    block = f"with FolderLock({str(tmp_path)!r}, 'training'):"
    with launched(holder(block)) as process:
        process.stdout.readline()
        with pytest.raises(
            UserError, match=f"at work there .'training, process {process.pid} on {os.uname().nodename}"
        ):
            FolderLock(tmp_path, "training")
        process.send_signal(signal.SIGKILL)
        process.wait()
        FolderLock(tmp_path, "training").close()
    with FolderLock(tmp_path, "a"), pytest.raises(UserError, match="at work there"):
        FolderLock(tmp_path, "b")


def test_what_the_holder_has_forked_does_not_hold_the_folder_beyond_its_death(tmp_path):
    # loader processes outlive a killed training by seconds
    block = (
        f"import os\nlock = FolderLock({str(tmp_path)!r}, 'training')\n"
        "closed, close = os.pipe()\nchild = os.fork()\n"
        "if not child:\n    lock.close()\n    os.write(close, b'.')\n    time.sleep(300)\n"
        "if os.read(closed, 1):\n    print(child)"  # only now, or the kill might come before the child's close
    )
    with launched(holder(block)) as process:
        child = int(process.stdout.readline())
        process.stdout.readline()
        with pytest.raises(UserError, match="at work there"):
            FolderLock(tmp_path, "training")
        process.send_signal(signal.SIGKILL)
        process.wait()
        FolderLock(tmp_path, "training").close()
        os.kill(child, signal.SIGKILL)


def test_a_lock_that_is_a_link_is_refused_and_not_followed(tmp_path):
    (tmp_path / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="symbolic link"):
        FolderLock(tmp_path, "training")
    with pytest.raises(UserError, match="symbolic link"):
        no_links(tmp_path, ["absent", ".lock"])
    assert names(tmp_path) == [".lock"]


@pytest.mark.parametrize("kilobytes", [8, 40, 120])
def test_a_full_disk_under_hdf5_is_one_line_and_leaves_nothing(tmp_path, kilobytes):
    program = (
        "import numpy as np\n"
        "from vmr_common.cli.entrypoint import command\n"
        "from vmr_common.features.store import write_features\n"
        "from vmr_common.features.manifest import Manifest\n"
        "items = ((f'v{n}', np.full((60, 16), n, 'f4')) for n in range(100))\n"
        f"raise SystemExit(command(lambda argv: write_features({str(tmp_path / 'o.h5')!r}, items, Manifest()))([]))\n"
    )
    done = subprocess.run(
        ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "limited", sys.executable, "-c", program],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: cannot write {tmp_path / 'o.h5'}: File too large\n"
    assert names(tmp_path) == []


def test_a_key_given_twice_is_refused_wherever_json_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"x": {"k": 1, "b": 2, "k": 3}}')
    (tmp_path / "a.jsonl").write_text('{"k": 1}\n{"k": 1, "k": 1}\n')
    with pytest.raises(UserError, match=r"a\.json: the key 'k' occurs twice"):
        read_json(tmp_path / "a.json")
    with pytest.raises(UserError, match=r"a\.jsonl:2: the key 'k' occurs twice"):
        list(read_json_lines(tmp_path / "a.jsonl"))


def test_finding_a_key_given_twice_takes_work_in_proportion_to_the_keys():
    def calls(count: int) -> int:
        counted = 0

        def count_one(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event == "c_call"

        text = json.dumps({f"v{n}": n for n in range(count)})[:-1] + f', "v{count - 1}": 0}}'
        sys.setprofile(count_one)
        try:
            with pytest.raises(UserError, match="occurs twice"):
                parse_json(text, "a")
        finally:
            sys.setprofile(None)
        return counted

    assert calls(4000) <= 5 * calls(1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply|not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not usable JSON"),
        (r'["a \ud800 b"]', "half a surrogate pair"),
        (r'{"\udc00": 1}', "half a surrogate pair"),
        ("[1,", "not JSON"),
        (b"\xff\xfe\x00", "not"),
    ],
)
def test_json_that_means_nothing_is_one_error(text, message):
    with pytest.raises(UserError, match=rf"^here: .*({message})"):
        parse_json(text, "here")


def test_a_whole_surrogate_pair_is_text():
    assert parse_json(r'"\ud83d\ude00"', "here") == "\U0001f600"


def test_json_lines_are_told_apart_by_newlines_alone_and_numbered(tmp_path):
    (tmp_path / "a.jsonl").write_bytes('\ufeff{"a": "one\u2028two"}\r\n\n \t\n{"b": 2}'.encode())
    assert list(read_json_lines(tmp_path / "a.jsonl")) == [(1, {"a": "one\u2028two"}), (4, {"b": 2})]
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2: not UTF-8 text \(byte 0xff\)"):
        list(read_json_lines(tmp_path / "a.jsonl"))


@pytest.mark.parametrize("form", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_called_so(tmp_path, form):
    path = tmp_path / "a.json"
    path.write_bytes('\ufeff{"a": 1}\n{"a": 2}\n'.encode(form))
    for read in (lambda: list(read_json_lines(path)), lambda: read_json(path)):
        with pytest.raises(UserError, match=r"a\.json(:1)?: UTF-16 text .*: save it as UTF-8$"):
            read()


def test_a_last_line_that_is_still_being_written_may_be_left_out(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": 2')
    assert list(read_json_lines(tmp_path / "a.jsonl", unfinished_last=True)) == [(1, {"a": 1})]
    (tmp_path / "a.jsonl").write_text('{"a": 2\n')
    with pytest.raises(UserError, match=":1: not JSON"):
        list(read_json_lines(tmp_path / "a.jsonl", unfinished_last=True))


def test_packed_text_is_read_up_to_a_stated_bound(tmp_path, monkeypatch):
    monkeypatch.setattr("vmr_common.boundary.FREE", 1 << 16)
    with gzip.open(tmp_path / "small.gz", "wt") as file:
        file.write("x" * (1 << 16))
    assert len(read_text(tmp_path / "small.gz")) == 1 << 16
    with gzip.open(tmp_path / "bomb.gz", "wb") as file:
        file.write(bytes(1 << 22))
    with pytest.raises(UserError, match=r"bomb\.gz: holds more than"):
        read_text(tmp_path / "bomb.gz")
    (tmp_path / "cut.gz").write_bytes((tmp_path / "small.gz").read_bytes()[:30])
    with pytest.raises(UserError, match=r"cannot read .*cut\.gz"):
        read_text(tmp_path / "cut.gz")


def test_text_without_an_end_is_not_read_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("vmr_common.boundary.TEXT_LIMIT", 1 << 20)
    with pytest.raises(UserError, match="/dev/zero: holds more than"):
        read_text("/dev/zero")


@pytest.mark.e2e
def test_millions_of_blank_lines_in_a_small_file_are_refused_before_they_are_all_read(tmp_path):
    path = tmp_path / "blank.jsonl.gz"
    path.write_bytes(gzip.compress(b" \n" * (BLANK_LIMIT + 9) + b"{}\n"))
    with pytest.raises(UserError, match=f"blank.jsonl.gz:{BLANK_LIMIT + 1}: more than 1,048,576 blank lines"):
        list(read_json_lines(path))
    with pytest.raises(UserError, match="more than 1,048,576 blank lines"), opened(path):
        pass
    path.write_bytes(gzip.compress(b"\n" * BLANK_LIMIT + b"{}\n"))
    assert [number for number, _ in read_json_lines(path)] == [BLANK_LIMIT + 1]


def test_a_text_is_read_once_and_told_by_its_first_line(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b'\xef\xbb\xbf\n\n  \n{"a": 1}\r\n\n[2]\n')
    with opened(path) as source:
        assert source.first == '{"a": 1}'
        assert source.first_value() == {"a": 1}
        assert list(source.lines()) == [(4, '{"a": 1}\r\n'), (6, "[2]\n")]
    with opened(path) as source, opened(source) as again:
        assert again is source
        with pytest.raises(UserError, match=r"x:6: not JSON \(Extra data\)"):
            source.document()
    path.write_bytes(b'\n{"a":\n 1}')
    with opened(path) as source:
        assert source.first_value() is None
        assert source.document() == {"a": 1}
    path.write_bytes(b'{"a": 1, "a": 2}\n{"b": 3}')
    with opened(path) as source, pytest.raises(UserError, match="x:1: the key 'a' occurs twice"):
        source.document()
    path.write_bytes(b'{"a":\n\xff}')
    with opened(path) as source, pytest.raises(UserError, match="not UTF-8"):
        source.document()
    for empty in (b"", b"\n \n", b"\xef\xbb\xbf"):
        path.write_bytes(empty)
        with opened(path) as source:
            assert source.first == ""
            assert not list(source.rows())
