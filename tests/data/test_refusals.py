"""What `prepare` refuses, or says, instead of being wrong in silence."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from fgda_cli.data.images import write_image
from fgda_cli.data.store import PreparedDataset, pixels_hash
from fgda_cli.runtime.written import Written
from tests.helpers import fgda

RNG = np.random.default_rng(0)


def pictures(folder, names, size=(48, 64), suffix=".png"):
    for name in names:
        write_image(folder / f"{name}{suffix}", RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    return folder


def labels(folder, names, value=7, size=(48, 64)):
    for name in names:
        write_image(folder / f"{name}.png", np.full(size, value, np.uint8))
    return folder


def prepare(tmp_path, *more, name="mine", ids="label"):
    return fgda(
        "prepare",
        "folder",
        *more,
        "--name",
        name,
        "--size",
        "64x32",
        "--data-root",
        tmp_path / "data",
        "--label-ids",
        ids,
    )


@pytest.fixture
def own(tmp_path):
    return pictures(tmp_path / "a/img", range(4)), labels(tmp_path / "a/lab", range(4))


def test_other_raw_files_under_a_name_that_is_taken(own, tmp_path):
    assert prepare(tmp_path, "--images", own[0], "--labels", own[1]).returncode == 0
    other = pictures(tmp_path / "b/img", range(3)), labels(tmp_path / "b/lab", range(3))
    before = (tmp_path / "data/mine/manifest.json").read_bytes()
    done = prepare(tmp_path, "--images", other[0], "--labels", other[1])
    assert (
        done.returncode == 2
        and "was made from --images" in done.stderr
        and "keeps both" in done.stderr
    )
    assert (tmp_path / "data/mine/manifest.json").read_bytes() == before
    shutil.move(tmp_path / "a", tmp_path / "moved")
    # The same files at another place are no other data set.
    done = prepare(tmp_path, "--images", tmp_path / "moved/img", "--labels", tmp_path / "moved/lab")
    assert done.returncode == 0, done.stderr


def test_a_data_set_is_not_written_into_raw_images_or_beside_a_persons_files(own, tmp_path):
    for out in (own[0].parent, own[0]):
        done = fgda(
            "prepare",
            "folder",
            "--images",
            own[0],
            "--name",
            "img",
            "--size",
            "64x32",
            "--data-root",
            out,
        )
        assert done.returncode == 2 and "raw data of --images" in done.stderr, done.stderr
    assert sorted(path.name for path in own[0].iterdir()) == [f"{n}.png" for n in range(4)]
    (tmp_path / "data/mine").mkdir(parents=True)
    (tmp_path / "data/mine/notes.txt").write_text("mine")
    done = prepare(tmp_path, "--images", own[0], "--labels", own[1])
    assert done.returncode == 2 and "holds notes.txt" in done.stderr
    assert (tmp_path / "data/mine/notes.txt").read_text() == "mine"


def test_files_that_are_not_taken_are_said(own, tmp_path):
    (own[0] / "photo.gif").write_bytes(b"?")
    done = prepare(tmp_path, "--images", own[0], "--labels", own[1])
    assert done.returncode == 0 and "1 files are not taken: 1 .gif" in done.stderr, done.stderr


def test_numbers_that_begin_elsewhere_are_refused(tmp_path):
    images = pictures(tmp_path / "img", [f"{n:04d}" for n in range(0, 6)])
    done = prepare(
        tmp_path,
        "--images",
        images,
        "--labels",
        labels(tmp_path / "lab", [f"{n:04d}" for n in range(1, 7)]),
    )
    assert done.returncode == 2 and "images are numbered from 0 and labels from 1" in done.stderr
    # One image more is a frame without a label, no other numbering.
    fewer = labels(tmp_path / "fewer", [f"{n:04d}" for n in range(0, 5)])
    assert "numbered" not in prepare(tmp_path, "--images", images, "--labels", fewer).stderr


def test_one_image_in_two_splits_is_dropped_from_training_and_said(own, tmp_path):
    assert prepare(tmp_path, "--images", own[0], "--labels", own[1]).returncode == 0
    val = tmp_path / "v/img"
    val.mkdir(parents=True)
    shutil.copy(own[0] / "0.png", val / "other-name.png")
    done = prepare(
        tmp_path,
        "--images",
        val,
        "--labels",
        labels(tmp_path / "v/lab", ["other-name"]),
        "--split",
        "val",
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "data/mine/manifest.json").read_text())
    splits = manifest["splits"]
    assert [len(splits["train"]), len(splits["val"])] == [3, 1] and "0" not in [
        item["name"] for item in splits["train"]
    ]
    # what is left out is not counted either
    for split, items in splits.items():
        counted = sum(sum(item["counts"]) for item in items)
        assert counted == sum(manifest["class_pixels"][split].values()) > 0
        assert manifest["made"][split]["pixels"] == pixels_hash(items)
    assert (
        "1 images are left out, for the split val has the same pixels (e.g. 0, there other-name)"
        in done.stderr
    )


def turned(path, orientation):
    """Store pixels with an EXIF orientation."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(path, exif=exif)


def test_a_label_is_turned_as_its_image_is_or_refused(tmp_path):
    image = tmp_path / "img/0.png"
    label = tmp_path / "lab/0.png"
    write_image(image, RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    ids = np.full((48, 64), 7, np.uint8)
    ids[:24] = 23
    write_image(label, ids)
    turned(image, 3)
    done = prepare(tmp_path, "--images", image.parent, "--labels", label.parent)
    assert (
        done.returncode == 1
        and "turned differently by their EXIF data" in done.stderr + done.stdout
    )
    turned(label, 3)
    assert prepare(tmp_path, "--images", image.parent, "--labels", label.parent).returncode == 0
    (item,) = json.loads((tmp_path / "data/mine/manifest.json").read_text())["splits"]["train"]
    stored = cv2.imread(str(tmp_path / "data/mine" / item["label"]), cv2.IMREAD_UNCHANGED)
    assert (stored[: len(stored) // 2] == 0).all() and (stored[len(stored) // 2 :] == 10).all()


def test_outlines_of_another_size_are_refused_before_they_are_drawn(tmp_path):
    pictures(tmp_path / "set", ["0", "1"])
    outline = [[0, 0], [12999, 0], [12999, 12999], [0, 12999]]
    for number, size in enumerate(((64, 48), (13000, 13000))):
        tree = {
            "imageWidth": size[0],
            "imageHeight": size[1],
            "shapes": [{"label": "road", "points": outline}] * 50,
        }
        (tmp_path / f"set/{number}.json").write_text(json.dumps(tree))
    done = fgda(
        "prepare",
        "labelme",
        "--images",
        tmp_path / "set",
        "--name",
        "mine",
        "--size",
        "64x32",
        "--data-root",
        tmp_path / "data",
    )
    problems = json.loads((tmp_path / "data/mine/problems.json").read_text())
    assert [problem["reason"] for problem in problems] == [
        "sizes differ: image 64x48, outlines of one of 13000x13000"
    ], done.stderr


def test_cocos_panoptic_form_and_bdds_former_folders_have_a_hint(tmp_path):
    pictures(tmp_path / "img", ["0"])
    tree = {
        "images": [{"id": 1, "file_name": "0.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "road"}],
        "annotations": [{"image_id": 1, "file_name": "0.png", "segments_info": []}],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(tree))
    done = fgda(
        "prepare",
        "coco",
        "--images",
        tmp_path / "img",
        "--labels",
        tmp_path / "panoptic.json",
        "--name",
        "x",
        "--size",
        "64x32",
        "--data-root",
        tmp_path / "data",
    )
    assert done.returncode == 1 and "panoptic form" in done.stderr
    (tmp_path / "bdd/seg/images/val").mkdir(parents=True)
    done = fgda("prepare", "bdd100k", "--root", tmp_path / "bdd", "--data-root", tmp_path / "data")
    assert done.returncode == 1 and "--label-suffix _train_id.png" in done.stderr


def test_files_that_only_or_the_layout_leave_out_are_no_surprise(own, tmp_path):
    done = prepare(tmp_path, "--images", own[0], "--labels", own[1], "--only", "0.*")
    assert done.returncode == 0 and "not taken" not in done.stderr, done.stderr
    (own[0] / "0.gif").write_bytes(b"?")
    done = prepare(tmp_path, "--images", own[0], "--labels", own[1], "--only", "0.*")
    assert "1 files are not taken: 1 .gif" in done.stderr, done.stderr


def test_what_fgda_drew_among_the_images_is_left_out_and_said(own, tmp_path):
    """An overlay has the pixels of a photograph: it would be trained on."""
    images, label_maps = own
    written = Written(images)
    for name in ("0_overlay.png", "0_ids.png", "legend.png"):
        shutil.copy(images / "0.png", images / name)
        written.done(name)

    def prepared(name, *more):
        done = prepare(tmp_path, "--images", images, *more, name=name)
        assert done.returncode == 0, done.stderr
        assert "not taken" not in done.stderr
        return done.stderr, len(PreparedDataset(tmp_path / "data" / name).items("train"))

    for name, more in (("alone", ()), ("paired", ("--labels", label_maps))):
        said, count = prepared(name, *more)
        assert "3 files that fgda wrote are left out" in said and count == 4
    # what a person changed is theirs
    shutil.copy(images / "1.png", images / "legend.png")
    said, count = prepared("alone")
    assert "2 files that fgda wrote are left out" in said and count == 5
    for number in range(4):
        (images / f"{number}.png").unlink()
    (images / "legend.png").unlink()
    done = prepare(tmp_path, "--images", images, name="nothing")
    assert done.returncode == 1
    assert "there: 2 files that fgda wrote are left out" in done.stderr, done.stderr


def test_splits_whose_images_look_otherwise_are_said(own, tmp_path):
    """A valid set of other rows would be evaluated without a word."""
    images, label_maps = own
    both = ("--images", images, "--labels", label_maps)
    assert prepare(tmp_path, *both, "--only", "[01].*").returncode == 0
    others = ("--only", "[23].*", "--split", "val")
    alike = prepare(tmp_path, *both, *others)
    assert alike.returncode == 0 and "which is kept" not in alike.stderr, alike.stderr
    done = prepare(tmp_path, *both, *others, "--rows", "10:90", "--resample", "bicubic")
    assert done.returncode == 0, done.stderr
    assert (
        "the split train, which is kept, was prepared with --rows none, now 10:90;"
        " --resample area, now bicubic"
    ) in done.stderr


def test_other_patterns_than_before_are_said(own, tmp_path):
    """Two patterns had been shown as a size, which ended in an internal error."""
    both = ("--images", own[0], "--labels", own[1])
    assert prepare(tmp_path, *both, "--only", "0.*", "--only", "1.*").returncode == 0
    done = prepare(tmp_path, *both, "--only", "2.*")
    assert done.returncode == 0, done.stderr
    assert "train was prepared with --only 0.* 1.*, now 2.*" in done.stderr
    assert "--only 2.*, now none" in prepare(tmp_path, *both).stderr


def test_images_of_one_colour_are_warned_of(own, tmp_path):
    write_image(own[0] / "2.png", np.zeros((48, 64, 3), np.uint8))
    done = prepare(tmp_path, "--images", own[0], "--labels", own[1])
    assert done.returncode == 0
    assert "train: 1 of 4 images are of one colour, e.g. 2: leave them out" in done.stderr
