"""What a command wrote is known from what a person made or changed, in the same folder, and the
latter is never touched.
"""

from __future__ import annotations

import shutil

import pytest
import torch
from PIL import Image

from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.written import Written
from tests.helpers import fgda


def test_files_of_ours_may_be_written_again_and_those_of_a_person_not(tmp_path):
    (tmp_path / "theirs.txt").write_text("mine")
    with pytest.raises(UsageError, match="theirs.txt is there already, and fgda did not write it"):
        Written(tmp_path).plan(["ours.txt", "theirs.txt"])
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.txt"]
    written = Written(tmp_path)
    written.plan(["ours.txt"])
    (tmp_path / "ours.txt").write_text("1")
    # Killed between writing and recording: it is ours.
    Written(tmp_path).plan(["ours.txt"])
    written.done("ours.txt")
    Written(tmp_path).plan(["ours.txt"])
    assert Written(tmp_path).facts["ours.txt"] is None
    written.done("ours.txt")
    (tmp_path / "ours.txt").write_text("corrected by a person")
    with pytest.raises(UsageError, match="was changed since fgda wrote it"):
        Written(tmp_path).plan(["ours.txt"])


def test_what_an_earlier_call_wrote_goes_and_what_a_person_changed_stays(tmp_path):
    names = ["a.txt", "b.txt", "c.txt"]
    first = Written(tmp_path)
    first.plan(names)
    for name in names:
        (tmp_path / name).write_text(name)
    first.finish(names)
    (tmp_path / "b.txt").write_text("changed by a person")
    second = Written(tmp_path)
    second.plan(["a.txt"])
    (tmp_path / "a.txt").write_text("again")
    second.finish(["a.txt"])
    assert sorted(path.name for path in tmp_path.glob("*.txt")) == ["a.txt", "b.txt"]


def test_a_damaged_journal_protects_what_it_does_not_name(tmp_path):
    written = Written(tmp_path)
    written.plan(["a.txt"])
    (tmp_path / "a.txt").write_text("1")
    written.done("a.txt")
    journal = next(tmp_path.glob(".fgda-written*"))
    journal.write_bytes(b"\xff\xfe{]\n[1]\n5\n")
    with pytest.raises(UsageError, match="fgda did not write it"):
        Written(tmp_path).plan(["a.txt"])


def test_predictions_that_a_person_corrected_stay_and_the_rest_goes_on(
    trained, raw_playground, tmp_path
):
    photos = next((raw_playground / "street/leftImg8bit/val").rglob("*.png")).parent
    out = tmp_path / "out"
    assert fgda("predict", trained, photos, "--out", out, "--device", "cpu").returncode == 0
    maps = sorted(out.rglob("*_ids.png")) or sorted(path for path in out.rglob("*.png"))
    assert fgda("predict", trained, photos, "--out", out, "--device", "cpu").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in maps}
    maps[0].unlink()
    done = fgda("predict", trained, photos, "--out", out, "--device", "cpu", "--skip-existing")
    assert done.returncode == 0, done.stderr
    after = {path: path.stat().st_mtime_ns for path in maps}
    # The image whose map is gone is done again, and no other.
    assert sum(before[path] == after[path] for path in maps) >= len(maps) - 4 and maps[0].is_file()
    maps[1].write_bytes(b"corrected by hand")
    done = fgda("predict", trained, photos, "--out", out, "--device", "cpu")
    assert done.returncode == 2 and "was changed since fgda wrote it" in done.stderr
    assert maps[1].read_bytes() == b"corrected by hand"


def test_results_of_another_checkpoint_or_of_other_options_are_not_kept(
    trained, raw_playground, tmp_path
):
    """`--skip-existing` on a folder of another model's maps: half of each had been left there."""
    photo = next((raw_playground / "street/leftImg8bit/val").rglob("*.png"))
    image = shutil.copy(photo, tmp_path / "a.png")
    other = shutil.copy(trained, tmp_path / "other.pth")
    content = torch.load(other, weights_only=True)
    content["model"] |= {
        name: 0.9 * value for name, value in content["model"].items() if name.startswith("head")
    }
    torch.save(content, other)

    def predicted_again(*arguments) -> bool:
        out = tmp_path / "out"
        done = fgda("predict", *arguments, "--out", out, "--device", "cpu", "--skip-existing")
        assert done.returncode == 0, done.stderr
        assert ("predicted again" in done.stderr) == ("1 predicted" in done.stdout)
        return "1 predicted" in done.stdout

    first = ("predict", trained, image, "--out", tmp_path / "out", "--device", "cpu")
    assert fgda(*first).returncode == 0
    assert not predicted_again(trained, image)
    assert predicted_again(trained, image, "--ids", "label")
    assert predicted_again(trained, image, "--ids", "label", "--flip")
    assert predicted_again(other, image, "--ids", "label", "--flip")
    assert not predicted_again(other, image, "--ids", "label", "--flip")
    Image.open(photo).transpose(Image.Transpose.ROTATE_180).save(image)
    assert predicted_again(other, image, "--ids", "label", "--flip")


@pytest.mark.parametrize("command", ["evaluate", "verdict", "gap"])
def test_a_page_of_a_person_in_a_reports_folder_stays(trained, data_root, tmp_path, command):
    other = shutil.copy(trained, tmp_path.parent / "other.pth")
    arguments = {
        "evaluate": ("evaluate", trained),
        "verdict": ("verdict", other, "--baseline", trained, "--frames", "4"),
        "gap": ("gap", "playground-game", "playground-street"),
    }[command]
    how = (*arguments, "--data-root", data_root, "--device", "cpu", "--report", tmp_path)
    (tmp_path / "index.html").write_text("mine")
    done = fgda(*how)
    assert (
        done.returncode == 2
        and "index.html is there already, and fgda did not write it" in done.stderr
    ), done.stderr
    assert (tmp_path / "index.html").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "index.html").unlink()
    # Its own page it writes again.
    for _ in range(2):
        assert fgda(*how).returncode == 0


@pytest.mark.parametrize("name", ["net.onnx", "sheet.png", "page.html", "net.pth"])
def test_a_persons_file_under_the_name_of_a_result_stays(trained, raw_playground, tmp_path, name):
    """Named by --out of export, compare and import; asked before the work, and ours is replaced."""
    photos = next((raw_playground / "street/leftImg8bit/val").rglob("*.png")).parent
    out = tmp_path / name
    command = {
        ".onnx": ("export", trained),
        ".pth": ("import", trained),
    }.get(out.suffix, ("compare", trained, "--images", photos, "--frames", "1"))
    out.write_text("mine")
    done = fgda(*command, "--out", out)
    assert done.returncode == 2 and f"{name} is there already" in done.stderr, done.stderr
    assert out.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
    if out.suffix in (".png", ".html"):
        out.unlink()
        for _ in range(2):
            assert fgda(*command, "--out", out).returncode == 0
