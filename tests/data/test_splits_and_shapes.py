"""`prepare --hold-out` and `--cut`: which files become the validation set, and what becomes of
images of other shapes.
"""

from __future__ import annotations

import numpy as np
import pytest

from fgda_cli.data.geometry import cut_to
from fgda_cli.data.images import write_image
from fgda_cli.data.store import PreparedDataset
from tests.helpers import fgda


@pytest.fixture
def footage(tmp_path):
    """Ten images 96x64 whose columns differ, the last of them upright."""
    columns = np.repeat(np.arange(96, dtype=np.uint8)[None, :, None] * 2, 64, 0).repeat(3, 2)
    for number in range(9):
        write_image(tmp_path / f"footage/{number:03d}.png", columns + np.uint8(number))
    write_image(tmp_path / "footage/009.png", np.ascontiguousarray(columns.transpose(1, 0, 2)))
    return tmp_path / "footage"


def test_the_last_files_by_name_become_the_validation_set(footage, tmp_path):
    done = fgda(
        "prepare",
        "folder",
        "--images",
        footage,
        "--name",
        "mine",
        "--hold-out",
        30,
        "--data-root",
        tmp_path / "data",
    )
    assert done.returncode == 0, done.stderr
    dataset = PreparedDataset(tmp_path / "data/mine")
    assert [item.name for item in dataset.items("val")] == ["007", "008", "009"]
    assert [item.name for item in dataset.items("train")] == [f"{n:03d}" for n in range(7)]
    assert any("from 007 on" in note for note in dataset.manifest["decisions"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("folder", "--split", "val", "--hold-out", 30), "--split val"),
        (("gta5", "--root", "x", "--hold-out", 30), "gta5, which has splits of its own"),
        (("folder", "--hold-out", 2), "of 10 images that is 0"),
        (("folder", "--cut"), "--cut needs --size"),
    ],
)
def test_what_cannot_be_held_out_or_cut_is_refused(footage, tmp_path, options, words):
    images = () if options[0] == "gta5" else ("--images", footage)
    done = fgda("prepare", *options, *images, "--data-root", tmp_path / "data")
    assert done.returncode == 2 and words in done.stderr
    assert not (tmp_path / "data/footage/manifest.json").exists()


def test_images_of_another_shape_are_named_and_may_be_cut(footage, tmp_path):
    where = ("--images", footage, "--size", "96x64", "--data-root", tmp_path / "data", "--name")
    squeezed = fgda("prepare", "folder", *where, "squeezed")
    assert "1 of 10 images have another shape than most (96x64) and are squeezed" in squeezed.stderr
    cut = fgda("prepare", "folder", *where, "cut", "--cut")
    assert "another shape" not in cut.stderr
    dataset = PreparedDataset(tmp_path / "data/cut")
    upright = dataset.items("train")[-1]
    assert upright.size == (64, 43) and dataset.image(upright).shape == (64, 96, 3)
    rows = dataset.image(upright)[..., 0].mean(1)
    # the middle 43 of 96 rows, none squeezed together
    assert abs(rows[0] - 2 * 26) < 3 and abs(rows[-1] - 2 * 69) < 3
    assert np.array_equal(dataset.image(dataset.items("train")[0])[0, :, 0], np.arange(96) * 2)


@pytest.mark.parametrize(
    ("size", "like", "wanted"),
    [((100, 50), (1, 1), (50, 50)), ((50, 100), (2, 1), (50, 25)), ((7, 7), (7, 7), (7, 7))],
)
def test_the_cut_is_the_largest_middle_part(size, like, wanted):
    pixels = np.arange(size[0] * size[1]).reshape(size[1], size[0])
    part = cut_to(pixels, like)
    assert part.shape[::-1] == wanted
    middle = (size[1] - wanted[1]) // 2, (size[0] - wanted[0]) // 2
    assert part[0, 0] == pixels[middle]
