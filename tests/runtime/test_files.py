"""Files are written whole or not at all, and what cannot be written is named."""

import subprocess
import sys

import pytest

from fgda_cli.runtime import files
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.files import alone_in


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_several_files_appear_together(tmp_path):
    with files.whole_files(tmp_path / "sub/a", tmp_path / "sub/b") as partials:
        for number, partial in enumerate(partials):
            partial.write_text(str(number))
        assert not (tmp_path / "sub/a").exists()
    assert [(tmp_path / "sub" / name).read_text() for name in "ab"] == ["0", "1"] and names(
        tmp_path / "sub"
    ) == ["a", "b"]


def test_of_several_files_none_is_replaced_when_one_cannot_be_written(tmp_path):
    for name in "ab":
        (tmp_path / name).write_text("old")
    refused = pytest.raises(FgdaError, match=f"cannot write {tmp_path}/a: No space left on device")
    with refused, files.whole_files(tmp_path / "a", tmp_path / "b") as partials:
        partials[0].write_text("new")
        raise OSError(28, "No space left on device", "some/other/file")
    assert [(tmp_path / name).read_text() for name in "ab"] == ["old", "old"] and names(
        tmp_path
    ) == ["a", "b"]


def test_a_line_that_cannot_be_added_names_its_file(tmp_path):
    files.append_line(tmp_path / "log", "one")
    files.append_line(tmp_path / "log", "two")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    with pytest.raises(FgdaError, match=f"cannot write {tmp_path}: Is a directory"):
        files.append_line(tmp_path, "three")


def test_what_a_library_raises_for_a_failed_write_is_said_as_one(tmp_path):
    with (
        pytest.raises(FgdaError, match="cannot write x: the write failed .is the disk full"),
        files.writing("x", RuntimeError),
    ):
        raise RuntimeError("iostream error")
    # an error of our own stays one
    with pytest.raises(RuntimeError), files.writing("x"):
        raise RuntimeError("a defect")


def test_two_processes_do_not_work_in_one_folder(tmp_path):
    """Case 35: two `ablate --out t` at once trained the same cells, every line of the log twice."""
    code = (
        "import sys, time; from pathlib import Path; from fgda_cli.runtime.files import alone_in\n"
        "with alone_in(Path(sys.argv[1])):\n    print('in', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "in\n"
        with (
            pytest.raises(UsageError, match=f"process {other.pid} is at work in {tmp_path}"),
            alone_in(tmp_path),
        ):
            pass
    finally:
        other.kill()
        other.wait()
    with alone_in(tmp_path):  # whatever ended it
        pass
