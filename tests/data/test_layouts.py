"""Each raw format read as it is published, and each way in which such files go wrong."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from fgda_cli.data import layouts, mapping
from fgda_cli.data.cache import fill
from fgda_cli.data.classes import CITYSCAPES, CITYSCAPES_IDS, PALETTE, SYNTHIA_IDS
from fgda_cli.data.convert import Task
from fgda_cli.data.images import BadFile, read_rgb, write_image
from fgda_cli.data.layouts import folder
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.store import PreparedDataset, read_manifest
from fgda_cli.runtime.errors import FgdaError, UsageError
from tests.helpers import QUIET


def picture(path, width=64, height=48, value=90):
    write_image(path, np.full((height, width, 3), value, np.uint8))


def palette_png(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8))
    image.putpalette([(i * 7) % 256 for i in range(768)])
    image.save(path)


def run(layout, root, out, size=(32, 32), name="set"):
    listing = layout.find(root)
    task = Task(
        name, out / name, size, num_classes=len(listing.classes), read_label=layout.read_label
    )
    return fill(task, listing, QUIET, workers=1), PreparedDataset(out / name)


def test_gta5_palette_indices_are_label_ids_not_colours(tmp_path):
    ids = np.array([[7, 8, 33], [34, 0, 26]])
    palette_png(tmp_path / "label.png", ids)
    assert layouts.layout("gta5").read_label(tmp_path / "label.png").tolist() == [
        [0, 1, 18],
        [255, 255, 13],
    ]


def test_gta5_rgb_labels_go_through_cityscapes_colours(tmp_path):
    write_image(tmp_path / "label.png", np.array([[PALETTE[0], PALETTE[13], (0, 0, 0)]], np.uint8))
    assert layouts.layout("gta5").read_label(tmp_path / "label.png").tolist() == [[0, 13, 255]]
    write_image(tmp_path / "odd.png", np.array([[PALETTE[0], (1, 2, 3), (1, 2, 3)]], np.uint8))
    with pytest.raises(BadFile, match=r"1 unknown label colours on 2 pixels.*\(1, 2, 3\)"):
        layouts.layout("gta5").read_label(tmp_path / "odd.png")


def test_synthia_class_ids_lie_in_the_first_of_three_16_bit_channels(tmp_path):
    raw_ids = np.array([sorted(SYNTHIA_IDS)], np.uint16)
    rgb = np.stack([raw_ids, np.full_like(raw_ids, 4000), np.zeros_like(raw_ids)], axis=2)
    cv2.imwrite(str(tmp_path / "label.png"), rgb[..., ::-1])
    assert layouts.layout("synthia").read_label(tmp_path / "label.png")[0].tolist() == [
        SYNTHIA_IDS[i] for i in sorted(SYNTHIA_IDS)
    ]


def test_synthia_refuses_8_bit_labels(tmp_path):
    write_image(tmp_path / "label.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(BadFile, match="16 bit"):
        layouts.layout("synthia").read_label(tmp_path / "label.png")


def test_synthia_end_to_end(tmp_path):
    picture(tmp_path / "RGB/0000000.png")
    (tmp_path / "GT/LABELS").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "GT/LABELS/0000000.png"), np.full((48, 64, 3), 8, np.uint16))
    _, dataset = run(layouts.layout("synthia"), tmp_path, tmp_path / "out")
    (item,) = dataset.items("train", labelled=True)
    assert (dataset.label(item) == 13).all() and dataset.label(item).shape == (32, 32)
    assert item.counts[13] == 64 * 48


def cityscapes_tree(root, train_labels=False):
    for split in ("train", "val"):
        for city in ("aachen", "bonn"):
            stem = f"{city}_000000_000019"
            picture(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
            if split == "val" or train_labels:
                write_image(
                    root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png",
                    np.full((48, 64), 26, np.uint8),
                )


def test_cityscapes_needs_no_training_label_and_keeps_validation_labels_at_their_size(tmp_path):
    cityscapes_tree(tmp_path)
    summary, dataset = run(layouts.layout("cityscapes"), tmp_path, tmp_path / "out")
    assert summary.images == {"train": 2, "val": 2}
    assert all(item.label is None for item in dataset.items("train"))
    label = dataset.label(dataset.items("val")[0])
    assert label.shape == (48, 64) and (label == 13).all()


def test_cityscapes_does_not_read_training_labels_that_are_there(tmp_path):
    cityscapes_tree(tmp_path, train_labels=True)
    for path in (tmp_path / "gtFine/train").rglob("*.png"):
        path.write_bytes(b"not to be read")
    summary, dataset = run(layouts.layout("cityscapes"), tmp_path, tmp_path / "out")
    assert summary.refused == 0 and all(item.label is None for item in dataset.items("train"))


def test_cityscapes_train_id_files(tmp_path):
    write_image(tmp_path / "a_gtFine_labelTrainIds.png", np.array([[0, 18, 255]], np.uint8))
    assert layouts.layout("cityscapes").read_label(
        tmp_path / "a_gtFine_labelTrainIds.png"
    ).tolist() == [[0, 18, 255]]
    write_image(tmp_path / "b_gtFine_labelTrainIds.png", np.array([[33]], np.uint8))
    with pytest.raises(BadFile, match="33"):
        layouts.layout("cityscapes").read_label(tmp_path / "b_gtFine_labelTrainIds.png")


@pytest.mark.parametrize("given, fits", [("outer", "inner"), ("inner/images", "inner")])
def test_a_root_one_level_off_names_the_level_that_fits(tmp_path, given, fits):
    for part in ("images", "labels"):
        (tmp_path / "outer/inner" / part).mkdir(parents=True)
    root = tmp_path / "outer" if given == "outer" else tmp_path / "outer" / given
    with pytest.raises(FgdaError, match=f"use --root .*{fits}"):
        layouts.layout("gta5").find(root)


def test_a_root_that_is_something_else_says_what_is_needed(tmp_path):
    with pytest.raises(FgdaError, match="images/ and labels/"):
        layouts.layout("gta5").find(tmp_path)


def test_refused_files_are_listed_with_reasons_and_the_rest_goes_on(tmp_path):
    good = np.full((48, 64), 7)
    for number in range(1, 8):
        picture(tmp_path / f"images/{number:05d}.png")
        palette_png(tmp_path / f"labels/{number:05d}.png", good)
    whole = (tmp_path / "images/00002.png").read_bytes()
    (tmp_path / "images/00002.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "images/00003.png").write_bytes(b"")
    palette_png(tmp_path / "labels/00004.png", np.full((46, 64), 7))
    (tmp_path / "labels/00005.png").unlink()
    palette_png(tmp_path / "labels/00006.png", np.full((48, 64), 99))
    (tmp_path / "images/00007.png").unlink()
    for junk in ("images/.DS_Store", "images/._00001.png", "images/Thumbs.db"):
        (tmp_path / junk).write_bytes(b"x")
    summary, dataset = run(layouts.layout("gta5"), tmp_path, tmp_path / "out")
    assert [item.name for item in dataset.items("train")] == ["00001"]
    problems = {
        p["file"].rsplit("/", 2)[-2] + "/" + p["file"].rsplit("/", 1)[-1]: p["reason"]
        for p in json.loads((tmp_path / "out/set/problems.json").read_text())
    }
    assert set(problems) == {
        "images/00002.png",
        "images/00003.png",
        "images/00004.png",
        "images/00005.png",
        "labels/00006.png",
        "labels/00007.png",
    }
    assert "zero bytes" in problems["images/00003.png"]
    assert "image 64x48, label 64x46" in problems["images/00004.png"]
    assert "99" in problems["labels/00006.png"]
    assert summary.refused == 6


def test_jpeg_labels_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "label.jpg"), np.zeros((8, 8), np.uint8))
    with pytest.raises(BadFile, match="JPEG"):
        layouts.layout("gta5").read_label(tmp_path / "label.jpg")


def test_names_with_spaces_foreign_letters_folders_and_upper_case_suffixes(tmp_path):
    picture(tmp_path / "images/Straße nord/bild 1.png")
    (tmp_path / "images/Straße nord/bild 1.png").rename(tmp_path / "images/Straße nord/bild 1.PNG")
    palette_png(tmp_path / "labels/Straße nord/bild 1.png", np.full((48, 64), 7))
    _, dataset = run(layouts.layout("gta5"), tmp_path, tmp_path / "out")
    (item,) = dataset.items("train")
    assert item.name == "Straße nord/bild 1" and dataset.image(item).shape == (32, 32, 3)


def test_folder_mapping_of_ids_colours_and_own_classes(tmp_path):
    (tmp_path / "map.yaml").write_text(
        "classes: [ground, thing]\n1: ground\n2: thing\n9: ignore\n[255, 0, 0]: thing\n"
    )
    meaning = mapping.load_mapping(tmp_path / "map.yaml")
    assert meaning.classes.names == ("ground", "thing") and len(set(meaning.classes.palette)) == 2
    write_image(tmp_path / "ids.png", np.array([[1, 2, 9, 255]], np.uint8))
    assert meaning.read_label(tmp_path / "ids.png").tolist() == [[0, 1, 255, 255]]
    write_image(tmp_path / "colour.png", np.array([[(255, 0, 0)]], np.uint8))
    assert meaning.read_label(tmp_path / "colour.png").tolist() == [[1]]
    write_image(tmp_path / "bad.png", np.array([[5]], np.uint8))
    with pytest.raises(BadFile, match="id 5 is not in the mapping"):
        meaning.read_label(tmp_path / "bad.png")


def test_folder_mapping_of_named_groups(tmp_path):
    (tmp_path / "map.yaml").write_text(
        "classes: [ground, thing]\nground: [1, 7, [255, 0, 0]]\n2: thing\nignore: [9]\n"
    )
    meaning = mapping.load_mapping(tmp_path / "map.yaml")
    assert meaning.ids == {1: 0, 7: 0, 2: 1, 9: 255} and meaning.colours == {(255, 0, 0): 0}
    (tmp_path / "map.yaml").write_text("classes: [vehicles, rest]\nvehicles: [car, truck, bus]\n")
    assert mapping.load_mapping(tmp_path / "map.yaml", by_name=True).names == {
        "car": 0,
        "truck": 0,
        "bus": 0,
    }


def test_folder_mapping_of_minus_one_touches_no_other_id(tmp_path):
    (tmp_path / "map.yaml").write_text("33: bicycle\n-1: ignore\n")
    write_image(tmp_path / "ids.png", np.array([[33]], np.uint8))
    assert mapping.load_mapping(tmp_path / "map.yaml").read_label(
        tmp_path / "ids.png"
    ).tolist() == [[18]]


def test_folder_mapping_with_an_unknown_class(tmp_path):
    (tmp_path / "map.yaml").write_text("1: rode\n")
    with pytest.raises(UsageError, match="'rode' is not a class"):
        mapping.load_mapping(tmp_path / "map.yaml")


def test_folder_without_labels(tmp_path):
    picture(tmp_path / "in/a/x.png")
    picture(tmp_path / "in/b.jpg")
    listing, _ = folder.open_own(OwnFiles(tmp_path / "in"))
    assert sorted(pair.name for pair in listing.pairs) == ["a/x", "b"]


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "I;16", "P", "1"])
def test_any_image_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        cv2.imwrite(str(path), np.full((4, 5), 40000, np.uint16))
    else:
        Image.new(mode, (5, 4)).save(path)
    rgb = read_rgb(path)
    assert rgb.shape == (4, 5, 3) and rgb.dtype == np.uint8


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_rgb(tmp_path / "a.jpg").shape == (8, 4, 3)


def test_manifests_cannot_name_files_outside_their_folder(tmp_path):
    item = {"name": "x", "image": "../secret.png", "label": None, "counts": None, "size": [8, 8]}
    manifest = {
        "format": "fgda-dataset",
        "version": 2,
        "dataset": "x",
        "classes": CITYSCAPES.to_json(),
        "splits": {"train": [item]},
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FgdaError, match="outside its folder"):
        read_manifest(tmp_path)


def test_cityscapes_ids_cover_all_classes():
    assert len(set(CITYSCAPES_IDS)) == 19 == len(set(SYNTHIA_IDS.values()))


def camvid_tree(root, annotated=("val",)):
    for split in ("train", "val"):
        for number in range(2):
            name = f"0001TP_{number:06d}.png"
            picture(root / split / name)
            if split in annotated:
                write_image(
                    root / f"{split}annot" / name,
                    np.tile(np.arange(12, dtype=np.uint8), (48, 6))[:, :64],
                )
    (root / "test").mkdir()


def test_camvid_ids_become_train_ids_and_its_training_labels_are_not_needed(tmp_path):
    camvid_tree(tmp_path)
    summary, dataset = run(layouts.layout("camvid"), tmp_path, tmp_path / "out")
    assert summary.images == {"train": 2, "val": 2} and all(
        item.label is None for item in dataset.items("train")
    )
    label = dataset.label(dataset.items("val")[0])
    assert label[0, :12].tolist() == [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 18, 255]


def test_camvid_refuses_other_ids_by_file(tmp_path):
    write_image(tmp_path / "x.png", np.full((4, 4), 12, np.uint8))
    with pytest.raises(BadFile, match="label id 12 is not one of CamVid's"):
        layouts.layout("camvid").read_label(tmp_path / "x.png")


def test_shipped_mappings_by_name(tmp_path, monkeypatch):
    from pathlib import Path

    assert {"camvid7", "cityscapes7"} <= set(mapping.mapping_names())
    first, second = (mapping.load_mapping(Path(name)) for name in ("camvid7", "cityscapes7"))
    assert (
        first.classes == second.classes
        and first.classes.names[0] == "road"
        and first.classes.palette[0] == PALETTE[0]
    )
    assert set(first.ids) == set(range(12)) and set(second.ids) == set(range(19))
    with pytest.raises(
        UsageError, match="none of the shipped ones: camvid11, camvid7, cityscapes7"
    ):
        mapping.load_mapping(Path("camvid"))
    monkeypatch.chdir(tmp_path)
    # a file of that name comes first
    Path("camvid7").write_text("1: road\n")
    assert mapping.load_mapping(Path("camvid7")).ids == {1: 0}


GREY = np.full((48, 64), 0, np.uint8)


def coloured(colour):
    return np.broadcast_to(np.array(colour, np.uint8), (48, 64, 3)).copy()


# layout: images, labels by path, what is expected of them: (split, name, labelled) and the train id
# of every label pixel
REAL = {
    "bdd100k": (
        ["images/10k/train/a.jpg", "images/10k/val/b.jpg", "images/10k/test/c.jpg"],
        {
            "labels/sem_seg/masks/train/a.png": GREY + 200,
            "labels/sem_seg/masks/val/b.png": GREY + 13,
        },
        {("train", "a", False), ("val", "b", True)},
        13,
    ),
    "urbansyn": (
        ["rgb/rgb_0001.png"],
        {"ss/ss_0001.png": np.dstack([GREY + 10, GREY, GREY, GREY + 255])},
        {("train", "rgb_0001", True)},
        10,
    ),
    "synscapes": (["img/rgb/1.png"], {"img/class/1.png": GREY + 26}, {("train", "1", True)}, 13),
    "wilddash2": (
        ["images/de0001.jpg"],
        {"labels/de0001.png": np.where(np.arange(64) < 32, 26, 38).astype(np.uint8) + GREY},
        {("val", "de0001", True)},
        {13, 255},
    ),
    "kitti": (
        ["training/image_2/000000_10.png", "testing/image_2/000001_10.png"],
        {"training/semantic/000000_10.png": GREY + 23},
        {("val", "000000_10", True), ("train", "000001_10", False)},
        10,
    ),
    "mapillary": (
        ["training/images/a.jpg", "validation/images/b.jpg"],
        {"validation/v1.2/labels/b.png": GREY + 55},
        {("train", "a", False), ("val", "b", True)},
        13,
    ),
    "vkitti2": (
        ["Scene01/clone/frames/rgb/Camera_0/rgb_00001.jpg"],
        {
            "Scene01/clone/frames/classSegmentation/Camera_0/classgt_00001.png": coloured(
                (255, 127, 80)
            )
        },
        {("train", "Scene01/clone/frames/rgb/Camera_0/rgb_00001", True)},
        13,
    ),
    "acdc": (
        [
            "rgb_anon/night/train/GP1/a_rgb_anon.png",
            "rgb_anon/fog/val/GP2/b_rgb_anon.png",
            "rgb_anon/fog/val_ref/GP2/b_rgb_ref_anon.png",
        ],
        {
            "gt/fog/val/GP2/b_gt_labelTrainIds.png": GREY + 13,
            "gt/fog/val/GP2/b_gt_labelColor.png": coloured((0, 0, 142)),
        },
        {("train", "night/train/GP1/a", False), ("val", "fog/val/GP2/b", True)},
        13,
    ),
    "darkzurich": (
        [
            "rgb_anon/train/night/GP1/a_rgb_anon.png",
            "rgb_anon/val/night/GP2/b_rgb_anon.png",
            "rgb_anon/train/day/GP1/c_rgb_anon.png",
        ],
        {"gt/val/night/GP2/b_gt_labelTrainIds.png": GREY + 13},
        {("train", "train/night/GP1/a", False), ("val", "val/night/GP2/b", True)},
        13,
    ),
    "idd": (
        ["leftImg8bit/train/0/1_leftImg8bit.png", "leftImg8bit/val/2/3_leftImg8bit.jpg"],
        {
            "gtFine/val/2/3_gtFine_labelcsTrainIds.png": GREY + 13,
            "gtFine/val/2/3_gtFine_polygons.json": None,
        },
        {("train", "0/1", False), ("val", "2/3", True)},
        13,
    ),
    "iddlite": (
        ["leftImg8bit/train/0/1_image.jpg", "leftImg8bit/val/2/3_image.jpg"],
        {
            "gtFine/train/0/1_label.png": GREY + 99,
            "gtFine/val/2/3_label.png": GREY + 6,
            "gtFine/val/2/3_inst_label.png": GREY + 77,
        },
        {("train", "0/1", False), ("val", "2/3", True)},
        6,
    ),
    "camvid": (
        [
            f"701_StillsRaw_full/{name}.png"
            for name in (
                "0001TP_006690",
                "0001TP_008550",
                "0016E5_07959",
                "0016E5_07960",
                "Seq05VD_f00000",
            )
        ],
        {
            "LabeledApproved_full/0016E5_07959_L.png": coloured((64, 128, 192)),
            "LabeledApproved_full/0001TP_006690_L.png": coloured((1, 2, 3)),
        },
        {
            ("train", "0001TP_006690", False),
            ("train", "0016E5_07960", False),
            ("val", "0016E5_07959", True),
        },
        13,
    ),
}


def real_tree(root, name):
    images, labels, _, _ = REAL[name]
    for path in images:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (90, 90, 90)).save(root / path)
    for path, values in labels.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("{}") if values is None else write_image(root / path, values)
    for junk in ("README.txt", "license.pdf", "__MACOSX/x.png", ".DS_Store"):
        (root / junk).parent.mkdir(exist_ok=True)
        (root / junk).write_bytes(b"x")


@pytest.mark.parametrize("name", REAL)
def test_real_layouts_as_they_are_published(tmp_path, name):
    real_tree(tmp_path / "raw", name)
    layout = layouts.layout(name)
    summary, dataset = run(layout, tmp_path / "raw", tmp_path / "out")
    _, _, expected, train_id = REAL[name]
    found = {(s, i.name, i.label is not None) for s in dataset.splits() for i in dataset.items(s)}
    assert found == expected and summary.refused == 0
    labels = [
        dataset.label(item) for s in dataset.splits() for item in dataset.items(s) if item.label
    ]
    assert {int(v) for label in labels for v in np.unique(label)} == (
        train_id if isinstance(train_id, set) else {train_id}
    )


@pytest.mark.parametrize("name", REAL)
def test_a_root_that_is_none_says_what_it_needs(tmp_path, name):
    layout = layouts.layout(name)
    (tmp_path / "else").mkdir()
    # any folder may hold scenes: it is found to hold none
    if name == "vkitti2":
        assert not layout.find(tmp_path).pairs
        return
    with pytest.raises(FgdaError, match=f"does not look like {layout.title}"):
        layout.find(tmp_path)


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("bdd100k", 40, "train id 40"),
        ("urbansyn", 19, "train id 19"),
        ("synscapes", 90, "label id 90"),
        ("kitti", 60, "label id 60"),
        ("mapillary", 66, "label id 66"),
        ("acdc", 77, "train id 77"),
        ("idd", 26, "train id 26"),
    ],
)
def test_values_that_a_layout_does_not_have_are_refused(tmp_path, name, value, words):
    layout = layouts.layout(name)
    path = tmp_path / ("x_gt_labelTrainIds.png" if name == "acdc" else "x.png")
    write_image(path, GREY + value)
    with pytest.raises(BadFile, match=words):
        layout.read_label(path)


@pytest.mark.parametrize("name", ["synscapes", "kitti", "wilddash2"])
def test_label_id_layouts_refuse_re_packings_with_train_ids(tmp_path, name):
    real_tree(tmp_path, name)
    for path in (tmp_path / p for p in REAL[name][1]):
        write_image(path, np.tile(np.arange(16, dtype=np.uint8), (48, 4)))
    with pytest.raises(
        UsageError, match="has label ids; for train ids: prepare folder --label-ids train"
    ):
        layouts.layout(name).find(tmp_path)


def test_one_condition_of_acdc(tmp_path):
    acdc = layouts.layout("acdc")
    real_tree(tmp_path, "acdc")
    assert [pair.name for pair in acdc.find(tmp_path, "night").pairs] == ["night/train/GP1/a"]
    with pytest.raises(UsageError, match="known are fog, night, rain, snow"):
        acdc.find(tmp_path, "sun")


def test_a_validation_image_without_its_label_is_refused_by_name(tmp_path):
    for name in ("acdc", "idd"):
        root = tmp_path / name
        real_tree(root, name)
        for path in REAL[name][1]:
            (root / path).unlink()
        listing = layouts.layout(name).find(root)
        assert len(listing.problems) == 1 and "without" in listing.problems[0]["reason"]


def test_cityscapes_beside_what_its_archives_unpack(tmp_path):
    """Both archives in one folder, with README, licence and what macOS adds."""
    cityscapes_tree(tmp_path, train_labels=True)
    for junk in (
        "README",
        "license.txt",
        "__MACOSX/leftImg8bit/train/aachen/._x_leftImg8bit.png",
        "leftImg8bit/.DS_Store",
    ):
        (tmp_path / junk).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / junk).write_bytes(b"x")
    for split in ("train_extra", "test"):
        picture(tmp_path / "leftImg8bit" / split / "x/x_000000_000019_leftImg8bit.png")
    write_image(
        tmp_path / "gtFine/val/aachen/aachen_000000_000019_gtFine_color.png", coloured((1, 2, 3))
    )
    summary, _ = run(layouts.layout("cityscapes"), tmp_path, tmp_path / "out")
    assert summary.images == {"train": 2, "val": 2} and summary.refused == 0


def test_prepare_list_names_every_layout_and_fits_80_columns():
    from tests.helpers import fgda

    done = fgda("prepare", "--list")
    assert done.returncode == 0 and all(
        f"{name}: " in done.stdout for name in layouts.layout_names()
    )
    assert "licence" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80
    assert fgda("prepare").returncode == 2


@pytest.mark.parametrize(
    "kind, train, val",
    [
        ("bdd100k", "images/10k/train/a.jpg", "images/10k/val/b.jpg"),
        ("mapillary", "training/images/a.jpg", "validation/images/b.jpg"),
    ],
)
def test_validation_images_without_labels_are_refused_not_dropped(tmp_path, kind, train, val):
    """Case 34."""
    for name in (train, val):
        picture(tmp_path / name)
    listing = layouts.layout(kind).find(tmp_path)
    assert [pair.split for pair in listing.pairs] == ["train"]
    assert [problem["reason"] for problem in listing.problems] == ["image without a label"]
