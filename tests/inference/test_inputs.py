"""What a person names is predicted, all of it and nothing else, under names that can be traced."""

from __future__ import annotations

import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from fgda_cli.data.images import visible_files, write_image
from fgda_cli.inference.inputs import collect
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.runtime.written import Written
from tests.helpers import fgda


def picture(path):
    write_image(path, np.full((32, 64, 3), 90, np.uint8))


def clip(path, frames=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 32))
    for _ in range(frames):
        writer.write(np.full((32, 64, 3), 90, np.uint8))
    writer.release()


def names(*inputs, recursive=False, out=None):
    return sorted(item.name for item in collect([str(text) for text in inputs], recursive, out))


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*_ids.png"))


def test_videos_in_folders_are_predicted_beside_the_photographs(trained, tmp_path):
    """Case 6."""
    picture(tmp_path / "in/1.png")
    clip(tmp_path / "in/drive.avi")
    clip(tmp_path / "only/a.avi", 2)
    done = fgda("predict", trained, tmp_path / "in", "--out", tmp_path / "out", "--save", "ids")
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "out") == [
        "1_ids.png",
        *(f"drive/00000{k}_ids.png" for k in (1, 2, 3)),
    ]
    done = fgda("entropy-map", trained, tmp_path / "only", "--out", tmp_path / "ent")
    assert done.returncode == 0 and len(list((tmp_path / "ent/a").glob("*_entropy.png"))) == 2, (
        done.stderr
    )


def test_folder_names_are_kept_when_several_are_given(tmp_path):
    """Case 7."""
    for folder in ("A", "B", "deep/A"):
        picture(tmp_path / folder / "1.png")
    assert names(tmp_path / "A") == ["1"]
    assert names(tmp_path / "A", tmp_path / "B") == ["A/1", "B/1"]
    assert names(tmp_path / "A", tmp_path / "deep/A") == sorted(
        [f"{tmp_path.name}/A/1", "deep/A/1"]
    )
    assert names(tmp_path / "A", tmp_path / "B/1.png") == ["1", "A/1"]


def test_single_files_of_one_name_differ_in_their_results(tmp_path):
    for name in ("A/1.png", "B/1.png", "B/1.jpg"):
        picture(tmp_path / "x.png")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((tmp_path / "x.png").read_bytes())
    found = names(tmp_path / "A/1.png", tmp_path / "B/1.png", tmp_path / "B/1.jpg")
    assert len(set(found)) == 3


@pytest.mark.parametrize("inside", ["out", "."])
def test_a_second_run_predicts_the_same_images_not_its_own_results(trained, tmp_path, inside):
    picture(tmp_path / "in/1.png")
    picture(tmp_path / "in/sub/2.png")
    out = tmp_path / "in" / inside
    before = None
    for _ in range(2):
        done = fgda("predict", trained, tmp_path / "in", "--recursive", "--out", out)
        assert done.returncode == 0 and "2 predicted" in done.stdout, done.stdout + done.stderr
        found = sorted(path.relative_to(tmp_path) for path in out.rglob("*.png"))
        assert before is None or found == before
        before = found
    assert (
        fgda("entropy-map", trained, tmp_path / "in", "--recursive", "--out", out).stdout.count(
            "2 "
        )
        >= 1
    )
    assert len(names(tmp_path / "in", recursive=True, out=out)) == 2


def test_a_photograph_that_only_looks_like_a_result_is_predicted(tmp_path):
    picture(tmp_path / "sunset_color.png")
    assert names(tmp_path, out=tmp_path) == ["sunset_color"]


def test_patterns_take_videos_and_leave_hidden_files(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / ".b.png")
    clip(tmp_path / "c.avi")
    assert names(tmp_path / "*") == ["a", "c"]
    with pytest.raises(FgdaError, match="no such image"):
        collect([str(tmp_path / "*.gif")], False)


def test_names_lead_back_to_their_files_and_none_is_written_twice(tmp_path):
    """Case 49."""
    for name in ("A/1.png", "B/1.png", "B/2.png", "C/drive/000001.png"):
        picture(tmp_path / name)
    clip(tmp_path / "C/drive.avi")
    assert names(tmp_path / "A/*.png", tmp_path / "B/*.png") == ["2", "A/1", "B/1"]
    assert names(tmp_path / "C", recursive=True) == ["drive.avi", "drive/000001"]
    assert names(tmp_path / "A/1.png", tmp_path / "A/../A/1.png") == ["1"]


def test_links_to_folders_are_followed_once(tmp_path):
    """Case 24: one of two cities, without a word."""
    for name in ("in/aachen/1.png", "elsewhere/2.png"):
        picture(tmp_path / name)
    (tmp_path / "in/bonn").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/again").symlink_to(tmp_path / "in/aachen")
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "in")
    assert names(tmp_path / "in", recursive=True) == ["aachen/1", "bonn/2"]
    assert [path.name for path in visible_files(tmp_path / "in", recursive=False)] == []


def test_label_maps_in_folders_are_no_photographs(tmp_path):
    """Case 25: a verdict looked at 40 label maps, and was 97 % sure."""
    reporter = Reporter(quiet=True, decisions=[])
    stripes = np.repeat(np.arange(8, dtype=np.uint8), 8)[None].repeat(32, 0)
    picture(tmp_path / "in/1.png")
    write_image(tmp_path / "in/1_gtFine_labelIds.png", stripes)
    write_image(tmp_path / "in/grey.png", stripes)
    Image.fromarray(stripes).convert("P").save(tmp_path / "in/palette.png")
    picture(tmp_path / "in/gtFine/val/x.png")
    write_image(tmp_path / "in/1_color.png", np.dstack([stripes] * 3))
    grey = np.random.default_rng(0).integers(0, 256, (32, 64), dtype=np.uint8)
    write_image(tmp_path / "in/night.png", grey)  # a grey photograph
    found = collect([str(tmp_path / "in")], True, reporter=reporter)
    assert sorted(item.name for item in found) == ["1", "night"]
    (said,) = reporter.decisions
    assert "5 label maps are left out" in said and "--label-maps" in said
    assert len(collect([str(tmp_path / "in")], True, label_maps=True)) == 7
    assert [item.name for item in collect([str(tmp_path / "in/grey.png")], True)] == ["grey"], (
        "a file that is named is read"
    )
    with pytest.raises(FgdaError, match="no image or video but 1 label maps"):
        collect([str(tmp_path / "in/gtFine")], True)


def test_what_fgda_wrote_among_photographs_is_no_photograph(tmp_path):
    """Overlays of an earlier run, predicted into the folder of the images or below it."""
    reporter = Reporter(quiet=True, decisions=[])
    for name in ("1", "2", "1_overlay", "maps/2_overlay"):
        picture(tmp_path / f"in/{name}.png")
    for folder, name in (("in", "1_overlay.png"), ("in", "maps/2_overlay.png")):
        Written(tmp_path / folder).done(name)
    found = collect([str(tmp_path / "in")], True, reporter=reporter)
    assert [item.name for item in found] == ["1", "2"]
    (said,) = reporter.decisions
    assert "2 files that fgda wrote are left out" in said
    assert names(tmp_path / "in/*.png") == ["1", "2"]
    # who names a file, or a folder of them, means it
    assert names(tmp_path / "in/1_overlay.png") == ["1_overlay"]
    assert names(tmp_path / "in/maps") == ["2_overlay"]
    with pytest.raises(UsageError, match="matches no image but 1 files that fgda wrote"):
        collect([str(tmp_path / "in/1_*.png")], False)
    # each message is about its own input
    with pytest.raises(UsageError, match="no such image"):
        collect([str(tmp_path / "in"), str(tmp_path / "in/9*.png")], False)
    for name in ("1", "2"):
        Written(tmp_path / "in").done(f"{name}.png")
    with pytest.raises(FgdaError, match="in holds no image or video but 3 files that fgda wrote"):
        collect([str(tmp_path / "in")], False)


def test_a_name_that_is_not_utf8_is_predicted_and_prepared_under_one_that_is(trained, tmp_path):
    """Case 23."""
    picture(tmp_path / "x.png")
    raw = os.fsencode(tmp_path / "in") + b"/stra\xdfe.png"
    os.mkdir(tmp_path / "in")
    with open(raw, "wb") as handle:
        handle.write((tmp_path / "x.png").read_bytes())
    done = fgda("predict", trained, tmp_path / "in", "--out", tmp_path / "o", "--save", "ids")
    assert done.returncode == 0 and "stra%DFe" in done.stderr, done.stderr
    assert written(tmp_path / "o") == ["stra%DFe_ids.png"]
    assert fgda("entropy-map", trained, tmp_path / "in", "--out", tmp_path / "e").returncode == 0
    ranked = fgda("rank", trained, tmp_path / "in", "--out", tmp_path / "r", "--top", "1", "--json")
    frame = json.loads(ranked.stdout)["frames"][0]
    assert frame["name"] == "stra%DFe" and os.fsencode(frame["path"]) == raw
    assert (
        json.loads((tmp_path / "r/ranking.json").read_text())["frames"][0]["path"] == frame["path"]
    )
    done = fgda(
        "prepare",
        "folder",
        "--images",
        tmp_path / "in",
        "--name",
        "set",
        "--data-root",
        tmp_path / "data",
    )
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((tmp_path / "data/set/manifest.json").read_text())["splits"]["train"][0]["name"]
        == "stra%DFe"
    )
    (tmp_path / "in/broken.png").write_bytes(b"no image")
    done = fgda(
        "prepare",
        "folder",
        "--images",
        tmp_path / "in",
        "--name",
        "set",
        "--data-root",
        tmp_path / "data",
    )
    assert done.returncode == 0 and "1 refused" in done.stdout, done.stderr
