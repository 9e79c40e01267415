"""Files are written whole or not at all."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ganvas.files import remove_partials, sync_folder, whole_file, write_whole


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_text_is_written_as_utf8_and_leaves_nothing_else_behind(tmp_path):
    write_whole(tmp_path / "a" / "config.yaml", "γ: ½\n")
    assert (tmp_path / "a" / "config.yaml").read_bytes() == "γ: ½\n".encode()
    assert names(tmp_path / "a") == ["config.yaml"]


def test_bytes_are_written_as_they_are(tmp_path):
    write_whole(tmp_path / "x.bin", b"a\r\n\x00b\n")
    assert (tmp_path / "x.bin").read_bytes() == b"a\r\n\x00b\n"


def test_a_failed_write_keeps_the_old_file_and_removes_the_temporary_one(tmp_path):
    target = tmp_path / "x.txt"
    write_whole(target, "old")
    with pytest.raises(KeyboardInterrupt), whole_file(target) as partial:
        partial.write_text("half", encoding="utf-8")
        raise KeyboardInterrupt
    assert target.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["x.txt"]


def test_the_old_file_stands_until_the_new_one_is_whole(tmp_path):
    target = tmp_path / "x.txt"
    write_whole(target, "old")
    with whole_file(target) as partial:
        partial.write_text("new", encoding="utf-8")
        assert target.read_text(encoding="utf-8") == "old"
    assert target.read_text(encoding="utf-8") == "new"


def test_the_temporary_name_keeps_the_suffix_and_is_hidden(tmp_path):
    with whole_file(tmp_path / "progress.mp4") as partial:
        assert partial.suffix == ".mp4"
        assert partial.name.startswith(".")
        partial.touch()


def test_two_threads_writing_one_file_do_not_disturb_each_other(tmp_path):
    target, contents = tmp_path / "x.txt", [letter * 100_000 for letter in "ab"]

    def write_often(content: str) -> None:
        for _ in range(10):
            write_whole(target, content)

    threads = [threading.Thread(target=write_often, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not target.exists() or target.read_text(encoding="utf-8") in contents
    assert names(tmp_path) == ["x.txt"]


def test_what_a_killed_process_left_is_removed_by_its_pid_and_nothing_else(tmp_path):
    write_whole(tmp_path / "kept.txt", "kept")
    killed = subprocess.run(
        [sys.executable, "-c", "import os, sys; from pathlib import Path; from ganvas.files import whole_file\n"
         "with whole_file(Path(sys.argv[1])) as partial:\n"
         "    partial.write_text('half'); print(os.getpid(), flush=True); os._exit(1)", str(tmp_path / "x.txt")],
        capture_output=True, text=True, check=False)
    pid = int(killed.stdout)
    assert len(names(tmp_path)) == 2
    remove_partials(tmp_path, pid + 1)
    assert len(names(tmp_path)) == 2
    remove_partials(tmp_path, pid)
    assert names(tmp_path) == ["kept.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders")
def test_a_file_system_that_cannot_sync_folders_is_no_error_but_a_failing_disk_is(tmp_path, monkeypatch):
    def fail_with(code: int):
        def fsync(descriptor: int) -> None:
            raise OSError(code, os.strerror(code))
        return fsync

    monkeypatch.setattr(os, "fsync", fail_with(errno.EINVAL))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync_folder(tmp_path)


def test_a_target_held_open_for_a_moment_is_tried_again_on_windows(tmp_path, monkeypatch):
    refusals, replace = iter([True, True]), Path.replace

    def replace_later(self: Path, target: Path) -> Path:
        if next(refusals, False):
            raise PermissionError("held by a viewer")
        return replace(self, target)

    target = tmp_path / "x.txt"
    monkeypatch.setattr(Path, "replace", replace_later)
    with monkeypatch.context() as windows:
        with whole_file(target) as partial:
            partial.write_text("new", encoding="utf-8")
            windows.setattr("ganvas.files.os.name", "nt")
        assert target.read_text(encoding="utf-8") == "new"
