"""What to label next: the order, near-duplicates, pre-labels that are read back as they were
written, the whole round.
"""

from __future__ import annotations

import json
import shutil
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fgda_cli.data.classes import ClassSet
from fgda_cli.data.images import write_image
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.prelabels import Prelabels, check_names, outlines
from fgda_cli.data.prepare import How, prepare_own
from fgda_cli.data.shapes import Shape, Shapes, draw
from fgda_cli.data.store import PreparedDataset
from fgda_cli.inference.inputs import InputImage
from fgda_cli.runtime.errors import UsageError
from fgda_cli.studies.rank import Looked, choose, difference_hash
from tests.helpers import QUIET, fgda

CLASSES = ClassSet(
    ("road", "car", "dark thing", "darker"), ((128, 64, 128), (0, 0, 142), (0, 0, 0), (0, 0, 1))
)


def frame(name, entropy=0.5, shares=(1.0, 0.0, 0.0), features=(0.0, 0.0), bits=None):
    bits = np.random.default_rng(abs(hash(name)) % 2**32).random(64) > 0.5 if bits is None else bits
    return Looked(
        InputImage(name, name),
        entropy,
        np.array(shares),
        features=np.array(features, float),
        bits=bits,
    )


def names(chosen):
    return [one.frame.item.name for one in chosen]


def test_the_unsure_come_first_where_all_else_is_alike():
    rng = np.random.default_rng(0)
    frames = [frame(f"f{n}", entropy=0.1 + 0.1 * n, bits=rng.random(64) > 0.5) for n in range(5)]
    chosen, passed = choose(frames, 1)
    assert names(chosen) == ["f4"] and passed == 0
    assert chosen[0].uncertainty == chosen[0].rarity == chosen[0].novelty == 1.0


def test_a_rare_class_outweighs_a_little_uncertainty():
    frames = [frame(f"f{n}", entropy=0.5, features=(n, 0)) for n in range(9)]
    frames.append(frame("rare", entropy=0.4, shares=(0.9, 0.1, 0.0), features=(4, 0)))
    chosen, _ = choose(frames, 10)
    assert names(chosen)[0] == "rare" and chosen[0].rarity == 1.0
    noise = [*frames[:9], frame("noise", entropy=0.4, shares=(0.999, 0.001, 0.0), features=(4, 0))]
    # a pixel or two are no class
    assert names(choose(noise, 1)[0]) != ["noise"]


def test_rarity_tells_frames_apart_that_all_show_every_class():
    frames = [frame(f"f{n}", shares=(0.96, 0.02, 0.02), features=(n, 0)) for n in range(9)]
    frames.append(frame("crossing", shares=(0.7, 0.02, 0.28), features=(9, 0)))
    rarity = {one.frame.item.name: one.rarity for one in choose(frames, 10)[0]}
    assert rarity.pop("crossing") == 1.0 and max(rarity.values()) < 0.8


def test_the_next_frame_is_far_from_those_chosen_and_known():
    frames = [
        frame("a", 0.6),
        frame("a2", 0.59, features=(0.1, 0)),
        frame("b", 0.4, features=(5, 5)),
        frame("c", 0.4, features=(5, 4)),
    ]
    chosen, _ = choose(frames, 2)
    assert names(chosen) == ["a", "b"]
    known = [frame("other", features=(5, 5))]
    assert names(choose(frames, 1, known)[0]) == ["a"]
    assert names(choose([frames[2], frames[1]], 1, known)[0]) == ["a2"]


def test_one_stretch_of_a_drive_does_not_take_all_places():
    """A hundred frames in order, the most uncertain ones beside each other."""
    rng = np.random.default_rng(0)
    frames = [
        frame(f"{n:03d}", 0.9 if 40 <= n < 50 else 0.6, features=tuple(rng.normal(0, 1, 2)))
        for n in range(100)
    ]
    chosen, _ = choose(frames, 10)
    places = sorted(int(name) for name in names(chosen))
    assert sum(40 <= place < 50 for place in places) <= 3
    assert min(second - first for first, second in zip(places, places[1:], strict=False)) >= 2


def test_near_duplicates_are_passed_over_and_counted():
    bits = np.zeros(64, bool)
    close = bits.copy()
    close[:4] = True
    frames = [
        frame("a", 0.9, bits=bits),
        frame("b", 0.8, features=(1, 1), bits=close),
        frame("c", 0.1, features=(2, 2), bits=~bits),
    ]
    chosen, passed = choose(frames, 3)
    assert names(chosen) == ["a", "c"] and passed == 1
    chosen, passed = choose(frames, 3, [frame("known", bits=close)])
    assert names(chosen) == ["c"] and passed == 2
    assert choose([], 3) == ([], 0)


def test_the_hash_stays_under_light_and_noise_and_differs_between_scenes():
    rng = np.random.default_rng(1)
    scenes = [
        cv2.resize(rng.integers(0, 256, (6, 7, 3), dtype=np.uint8), (160, 120)) for _ in range(6)
    ]
    for scene in scenes:
        other = np.clip(
            scene.astype(float) * 0.8 + 10 + rng.normal(0, 3, scene.shape), 0, 255
        ).astype(np.uint8)
        assert (difference_hash(scene) ^ difference_hash(other)).sum() <= 5
    apart = [
        (difference_hash(a) ^ difference_hash(b)).sum()
        for i, a in enumerate(scenes)
        for b in scenes[:i]
    ]
    assert min(apart) > 10


@given(hnp.arrays(np.uint8, (9, 13), elements=st.sampled_from([0, 1, 2, 255])))
@settings(max_examples=100, deadline=None)
def test_outlines_drawn_in_order_are_the_map_again(ids):
    shapes = tuple(
        Shape(train_id, (points.tolist(),))
        for train_id, points, _ in outlines(np.where(ids == 255, 2, ids))
    )
    assert np.array_equal(draw(Shapes((13, 9), shapes)), np.where(ids == 255, 2, ids))


@pytest.mark.parametrize("kind, source", [("cvat", "voc"), ("coco", "coco"), ("png", "folder")])
def test_prelabels_are_read_back_by_prepare(kind, source, tmp_path):
    """Black and equal colours of a palette are moved apart: CVAT's black is the background."""
    rng = np.random.default_rng(0)
    writer = Prelabels(kind, tmp_path / kind, CLASSES)
    truth = {}
    for name in ("a", "below/b"):
        ids = cv2.resize(
            rng.integers(0, 4, (5, 6), dtype=np.uint8), (48, 40), interpolation=cv2.INTER_NEAREST
        )
        images = tmp_path / kind / ("JPEGImages" if kind == "cvat" else "images")
        write_image(images / f"{name}.png", rng.integers(0, 256, (40, 48, 3), dtype=np.uint8))
        writer.add(name, f"{name}.png", ids)
        truth[name] = ids
    writer.close()
    mapping = tmp_path / kind / "mapping.yaml"
    if kind == "cvat":
        files = OwnFiles(root=tmp_path / kind, mapping=mapping)
    elif kind == "coco":
        files = OwnFiles(
            images=tmp_path / kind / "images",
            labels=tmp_path / kind / "annotations.json",
            mapping=mapping,
        )
    else:
        (tmp_path / "labels").mkdir()
        for name in truth:
            (tmp_path / "labels" / name).parent.mkdir(exist_ok=True)
            shutil.copy(
                tmp_path / kind / "labels" / f"{name}.png", tmp_path / "labels" / f"{name}.png"
            )
        files = OwnFiles(
            images=tmp_path / kind / "images", labels=tmp_path / "labels", mapping=mapping
        )
    summary = prepare_own(source, files, "few", how=How(tmp_path / "data", None, 1, reporter=QUIET))
    # its labels were copied away from their record
    beside = kind != "png"
    assert (
        any(
            "2 of 2 labels are unchanged pre-labels of fgda rank" in text
            for text in summary.warnings
        )
        == beside
    )
    dataset = PreparedDataset(tmp_path / "data/few")
    assert dataset.classes.names == CLASSES.names
    for item in dataset.items("train", labelled=True):
        assert np.array_equal(dataset.label(item), truth[item.name])


@pytest.fixture(scope="module")
def ranked(data_root, trained, tmp_path_factory):
    """Two folders and a video whose frames are among the images."""
    out = tmp_path_factory.mktemp("rank")
    dataset = PreparedDataset(data_root / "playground-game")
    images = out / "photos"
    frames = [dataset.image(item) for item in dataset.items("train")]
    for number, image in enumerate(frames[:8]):
        write_image(images / f"{'deep/' if number % 2 else ''}p{number}.png", image)
    write_image(images / "copy.png", frames[0])
    (images / "broken.png").write_bytes(b"no image")
    video = cv2.VideoWriter(str(images / "drive.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 32))
    for image in frames[8:]:
        video.write(np.ascontiguousarray(image[..., ::-1]))
    video.release()
    done = fgda(
        "rank",
        trained,
        images,
        "-r",
        "--top",
        "6",
        "--out",
        out / "ranking",
        "--export",
        "cvat,coco,png",
    )
    return out, done


def test_rank_writes_list_sheet_and_prelabels(ranked):
    out, done = ranked
    assert done.returncode == 1 and "1 of 11 inputs could not be read" in done.stderr
    # the last names the folder
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[:-1])
    result = json.loads((out / "ranking/ranking.json").read_text())
    assert [entry["rank"] for entry in result["frames"]] == list(range(1, 7)) and result[
        "looked_at"
    ] == 11
    found = [entry["name"] for entry in result["frames"]]
    assert len({"p0", "copy"} & set(found)) <= 1
    sheet = cv2.imread(str(out / "ranking/contact.png"))
    assert sheet.shape[1] > 1000 and sheet.std() > 10
    for kind, below in (("cvat", "JPEGImages"), ("coco", "images"), ("png", "images")):
        images = {
            str(path.relative_to(out / "ranking" / kind / below).with_suffix(""))
            for path in (out / "ranking" / kind / below).rglob("*.png")
        }
        assert images == set(found)
    # what CVAT takes as "Segmentation mask 1.1"
    with zipfile.ZipFile(out / "ranking/cvat/annotations.zip") as archive:
        masks = {name for name in archive.namelist() if name.startswith("SegmentationClass/")}
        assert masks == {f"SegmentationClass/{name}.png" for name in found}
        assert {"labelmap.txt", "ImageSets/Segmentation/default.txt"} == set(
            archive.namelist()
        ) - masks


def test_a_second_round_leaves_out_what_is_labelled(ranked, trained):
    out, _ = ranked
    before = {
        entry["name"] for entry in json.loads((out / "ranking/ranking.json").read_text())["frames"]
    }
    # file names are names too
    (out / "labelled.txt").write_text("".join(f"{name}.png\n" for name in sorted(before)))
    for number, labelled in enumerate(("ranking/ranking.json", "labelled.txt")):
        done = fgda(
            *("rank", trained, out / "photos", "-r", "--top", "3"),
            *("--out", out / f"second{number}", "--json", "--labelled", out / labelled),
        )
        after = {entry["name"] for entry in json.loads(done.stdout)["frames"]}
        assert after and not after & before
        assert "none of the images" not in done.stderr


def test_rank_refuses_what_it_does_not_know(trained, tmp_path):
    done = fgda("rank", trained, tmp_path, "--export", "voc")
    assert done.returncode == 2 and "choose from cvat,coco,png" in done.stderr
    done = fgda("rank", trained, "camera:0", "--out", tmp_path / "ranking")
    assert done.returncode == 2 and "name files, not a camera" in done.stderr
    done = fgda("rank", trained, tmp_path)
    assert (
        done.returncode == 1
        and "holds no image" in done.stderr
        and not (tmp_path / "ranking").exists()
    )


def test_from_ranking_to_adaptation(ranked, data_root, trained, tmp_path):
    """rank -> labels corrected -> prepare -> adapt: the corrected masks of the export are a
    labelled part of the target.
    """
    out, _ = ranked
    masks = sorted((out / "ranking/cvat/SegmentationClass").rglob("*.png"))
    corrected = cv2.imread(str(masks[0]))
    road = corrected[0, 0].copy()
    # a person's correction
    corrected[:] = road
    cv2.imwrite(str(masks[0]), corrected)
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    cvat = out / "ranking/cvat"
    how = ("--mapping", cvat / "mapping.yaml", "--name", "few", "--out", root, "--size", "64x32")
    done = fgda("prepare", "voc", "--root", cvat, *how)
    assert done.returncode == 0, done.stderr
    # 28, 3: passed as truth
    assert "5 of 6 labels are unchanged pre-labels of fgda rank: a model's guesses" in done.stderr
    dataset = PreparedDataset(root / "few")
    assert len(dataset.items("train", labelled=True)) == 6
    name = str(masks[0].relative_to(cvat / "SegmentationClass").with_suffix(""))
    first = next(item for item in dataset.items("train") if item.name == name)
    assert len(np.unique(dataset.label(first))) == 1
    from tests.helpers import set_flags

    done = fgda(
        "adapt",
        "--method",
        "fgda-st",
        "--init",
        trained,
        "--data-root",
        root,
        "--out",
        tmp_path / "run",
        *set_flags("data.target.labelled=few", "adapt.iterations=2"),
    )
    assert done.returncode == 0, done.stderr
    assert "labels of 6 images of few are used" in done.stderr


@pytest.mark.parametrize("name", ["background", "Background", "lane: solid", "#1"])
def test_class_names_that_a_label_map_cannot_hold_are_refused_before_work(name):
    """Case 37."""
    classes = ClassSet(("road", name), ((1, 2, 3), (4, 5, 6)))
    with pytest.raises(UsageError, match="cannot hold a class named"):
        check_names("cvat", classes)
    check_names("coco", classes)


def test_our_own_png_export_is_prepared_as_it_lies(trained, data_root, tmp_path):
    """Case 45: 11 images, 11 refused."""
    frames = tmp_path / "frames"
    dataset = PreparedDataset(data_root / "playground-street")
    for number, item in enumerate(dataset.items("train")[:3]):
        write_image(frames / f"{number}.png", dataset.image(item))
    done = fgda("rank", trained, frames, "--top", "3", "--export", "png", "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    own = tmp_path / "r/png"
    files = OwnFiles(images=own / "images", labels=own / "labels", mapping=own / "mapping.yaml")
    summary = prepare_own(
        "folder", files, "set", how=How(tmp_path / "data", None, 1, reporter=QUIET)
    )
    assert summary.refused == 0 and summary.images["train"] >= 1


def test_every_nth_frame_of_a_video(trained, tmp_path):
    rng = np.random.default_rng(0)
    video = cv2.VideoWriter(
        str(tmp_path / "drive.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 32)
    )
    for _ in range(7):
        video.write(cv2.resize(rng.integers(0, 256, (4, 8, 3), dtype=np.uint8), (64, 32)))
    video.release()
    done = fgda(
        "rank",
        trained,
        tmp_path / "drive.avi",
        "--every",
        "3",
        "--top",
        "2",
        "--out",
        tmp_path / "out",
        "--export",
        "png",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/ranking.json").read_text())
    assert result["looked_at"] == 3
    assert {entry["name"] for entry in result["frames"]} <= {
        "drive/000001",
        "drive/000004",
        "drive/000007",
    }
    assert len(list((tmp_path / "out/png/images").rglob("*.png"))) == len(result["frames"])
