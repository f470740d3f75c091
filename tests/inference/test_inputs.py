"""What a person names is predicted, all of it and nothing else, under names that can be traced."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fgda_cli.data.images import write_image
from fgda_cli.inference.inputs import collect
from fgda_cli.runtime.errors import FgdaError
from tests.conftest import fgda


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
    assert written(tmp_path / "out") == ["1_ids.png", *(f"drive/00000{k}_ids.png" for k in (1, 2, 3))]
    done = fgda("entropy-map", trained, tmp_path / "only", "--out", tmp_path / "ent")
    assert done.returncode == 0 and len(list((tmp_path / "ent/a").glob("*_entropy.png"))) == 2, done.stderr


def test_folder_names_are_kept_when_several_are_given(tmp_path):
    """Case 7."""
    for folder in ("A", "B", "deep/A"):
        picture(tmp_path / folder / "1.png")
    assert names(tmp_path / "A") == ["1"]
    assert names(tmp_path / "A", tmp_path / "B") == ["A/1", "B/1"]
    assert names(tmp_path / "A", tmp_path / "deep/A") == sorted([f"{tmp_path.name}/A/1", "deep/A/1"])
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
    assert fgda("entropy-map", trained, tmp_path / "in", "--recursive", "--out", out).stdout.count("2 ") >= 1
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
