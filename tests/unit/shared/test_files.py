import errno
import os
import subprocess
import sys

import pytest

from chorister.shared.files import exclusive_lock, write_atomically


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "state"
    write_atomically(path, b"old")

    def full(handle):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_the_file_has_the_mode_that_was_asked_for(tmp_path):
    write_atomically(tmp_path / "secret", b"x")
    write_atomically(tmp_path / "public", b"x", mode=0o644)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o644


def test_a_lock_ends_with_the_process_that_held_it(tmp_path):
    lock = tmp_path / "lock"
    script = (
        "import os, pathlib, sys\n"
        "from chorister.shared.files import exclusive_lock\n"
        "with exclusive_lock(pathlib.Path(sys.argv[1])):\n"
        "    os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(lock)], check=True)
    with exclusive_lock(lock):
        assert lock.exists()
