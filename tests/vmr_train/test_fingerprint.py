"""Files are the same where their bytes are, wherever they lie and whenever they were copied."""

import os
import shutil

import pytest

from vmr_common.errors import UserError
from vmr_train import fingerprint as module
from vmr_train.fingerprint import fingerprint


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "features.h5"
    path.write_bytes(bytes(range(200)))
    return path


def test_a_copy_under_another_name_and_time_is_the_same(file, tmp_path):
    before = fingerprint([file])
    assert before["hash"].startswith("sha256:")
    assert (before["files"], before["bytes"]) == (["features.h5"], 200)
    shutil.copy(file, tmp_path / "copy.h5")
    os.utime(tmp_path / "copy.h5", (0, 0))
    assert fingerprint([tmp_path / "copy.h5"])["hash"] == before["hash"]


def test_one_changed_bit_is_seen_though_the_times_are_put_back(file):
    before, times = fingerprint([file]), file.stat()
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = fingerprint([file], before)
    assert after["times"] == before["times"]
    assert after["hash"] != before["hash"]


def test_a_folder_is_its_files_and_their_names(tmp_path):
    folder = tmp_path / "videos"
    (folder / "b").mkdir(parents=True)
    (folder / "a.npy").write_bytes(b"one")
    (folder / "b/c.npy").write_bytes(b"two")
    before = fingerprint([folder])["hash"]
    (folder / "lock.mdb").write_bytes(b"LMDB's, changed by readers")
    shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint([tmp_path / "copy"])["hash"] == before
    (folder / "b/c.npy").rename(folder / "b/d.npy")
    assert fingerprint([folder])["hash"] != before


def test_the_order_of_joined_files_counts(file, tmp_path):
    other = tmp_path / "other.h5"
    other.write_bytes(b"x")
    assert fingerprint([file, other])["hash"] != fingerprint([other, file])["hash"]


def test_large_files_that_were_not_touched_are_not_read_again(file, monkeypatch):
    before = fingerprint([file])
    monkeypatch.setattr(module, "TRUSTED_FROM", 100)
    known = {**before, "hash": "sha256:known"}
    assert fingerprint([file], known) == known
    os.utime(file, (0, 0))
    assert fingerprint([file], known)["hash"] == before["hash"]


def test_a_file_that_is_not_there_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match=r"gone\.h5"):
        fingerprint([tmp_path / "gone.h5"])
