"""Mappings by class name on top of labels that are read already: published layouts, CARLA; held-out
drives.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgda_cli.data import prepare
from fgda_cli.data.geometry import parse_rows
from fgda_cli.data.images import BadFile, write_image
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.mapping import load_mapping
from fgda_cli.data.store import PreparedDataset
from fgda_cli.runtime.errors import UsageError
from fgda_cli.runtime.reporter import Reporter


def how(out):
    return prepare.How(out, (64, 32), 1, reporter=Reporter(quiet=True))


def kitti(root):
    write_image(root / "training/image_2/000000_10.png", np.full((48, 64, 3), 90, np.uint8))
    ids = np.full((48, 64), 22, np.uint8)  # terrain
    # road, person
    ids[:, :20] = 7
    ids[:, 20:30] = 24
    write_image(root / "training/semantic/000000_10.png", ids)
    return root


def test_a_published_data_set_in_other_classes(tmp_path):
    (tmp_path / "map.yaml").write_text(
        "classes: [road, plants]\nterrain: plants\nvegetation: plants\n"
    )
    summary = prepare.prepare_layout(
        "kitti", kitti(tmp_path / "raw"), how(tmp_path), name="k", mapping=tmp_path / "map.yaml"
    )
    dataset = PreparedDataset(summary.folder)
    assert dataset.classes.names == ("road", "plants")
    label = dataset.label(dataset.items("val")[0])
    assert (
        (label[:, :20] == 0).all() and (label[:, 20:30] == 255).all() and (label[:, 30:] == 1).all()
    )
    assert any(
        "ignored: sidewalk" in note and "person" in note for note in dataset.manifest["decisions"]
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [("7: road\n", "key 7 is not a name"), ("classes: [sofa]\n", "no label name is a class")],
)
def test_a_mapping_that_cannot_be_by_name_is_refused(tmp_path, text, said):
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(UsageError, match=said):
        prepare.prepare_layout(
            "kitti", kitti(tmp_path / "raw"), how(tmp_path), mapping=tmp_path / "map.yaml"
        )


def carla(root):
    for name in ("048999", "049000"):
        write_image(root / f"rgb/{name}.png", np.full((48, 64, 3), 90, np.uint8))
        tags = np.zeros((48, 64, 3), np.uint8)
        # sky, terrain, road in the red channel
        tags[:20, :, 0] = 13
        tags[20:30, :, 0] = 22
        tags[30:, :, 0] = 7
        write_image(root / f"seg/{name}.png", tags)


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ("street10", ("sky", "terrain", "road")),
        ("street8", ("sky", "vegetation", "road")),
        ("iddlite7", ("sky", "non-drivable", "drivable")),
    ],
)
def test_carla_in_the_classes_of_each_target_with_drives_held_out(tmp_path, mapping, expected):
    carla(tmp_path)
    for only, split in (("04[0-8]*", "train"), ("049*", "val")):
        files = OwnFiles(
            tmp_path / "rgb",
            tmp_path / "seg",
            mapping=Path(mapping),
            carla_version="old",
            only=(only,),
            split=split,
        )
        summary = prepare.prepare_own("carla", files, "carla", how=how(tmp_path))
    dataset = PreparedDataset(summary.folder)
    assert [item.name for item in dataset.items("train")] == ["048999"] and [
        i.name for i in dataset.items("val")
    ] == ["049000"]
    label = dataset.label(dataset.items("val")[0])
    assert tuple(dataset.classes.names[label[row, 0]] for row in (5, 25, 40)) == expected


def test_rows_are_cut_from_images_and_labels_alike(tmp_path):
    carla(tmp_path)
    files = OwnFiles(tmp_path / "rgb", tmp_path / "seg", carla_version="old", split="val")
    wanted = prepare.How(
        tmp_path, (64, 16), 1, reporter=Reporter(quiet=True), rows=parse_rows("25:62.5")
    )
    dataset = PreparedDataset(prepare.prepare_own("carla", files, "cut", how=wanted).folder)
    item = dataset.items("val")[0]
    label = dataset.label(item)
    # rows 12 to 29 of 48
    assert dataset.image(item).shape == (18, 64, 3) and label.shape == (18, 64)
    assert (label[:8] == 10).all() and (label[8:] == 9).all()
    assert sum(item.counts) == 18 * 64 and item.size == (64, 18)
    again = prepare.prepare_own(
        "carla", files, "cut", how=prepare.How(tmp_path, (64, 16), 1, reporter=Reporter(quiet=True))
    )
    assert PreparedDataset(again.folder).items("val")[0].size == (
        64,
        48,
    ), "other rows are converted again"


@pytest.mark.parametrize("text", ["70:29", "29", "29:101", "a:b", "29:29", "nan:50", "1:2:3"])
def test_rows_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="TOP:BOTTOM in percent"):
        parse_rows(text)


def test_every_unknown_id_and_the_commonest_unknown_colours_are_named(tmp_path):
    ids = np.arange(12, dtype=np.uint8)[None].repeat(4, 0)
    write_image(tmp_path / "ids.png", ids)
    (tmp_path / "ids.yaml").write_text("0: road\n2: car\n")
    with pytest.raises(
        BadFile,
        match=(
            r"label ids 1, 3, 4, 5, 6, 7, 8, 9 and 2 more are not .*`1: CLASS`, or `1: ignore` for"
            r" each"
        ),
    ):
        load_mapping(tmp_path / "ids.yaml").read_label(tmp_path / "ids.png")
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[:, 1:5] = (9, 8, 7)
    colours[:, 5] = (1, 2, 3)
    write_image(tmp_path / "rgb.png", colours)
    (tmp_path / "rgb.yaml").write_text("[0, 0, 0]: road\n")
    with pytest.raises(
        BadFile,
        match=(
            r"2 unknown label colours on 20 pixels: RGB \(9, 8, 7\), \(1, 2, 3\) \(add `\[9, 8,"
            r" 7\]: CLASS`"
        ),
    ):
        load_mapping(tmp_path / "rgb.yaml").read_label(tmp_path / "rgb.png")


def test_rest_stands_for_all_that_no_line_mentions(tmp_path):
    write_image(tmp_path / "ids.png", np.array([[0, 5, 9, 255]], np.uint8).repeat(4, 0))
    write_image(tmp_path / "rgb.png", np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8).repeat(4, 0))
    path = tmp_path / "map.yaml"
    for text, ids, colours in (
        ("classes: [road, other]\n0: road\n[1, 2, 3]: road\nrest: other\n", [0, 1, 1, 255], [0, 1]),
        (
            "classes: [road, other]\n0: road\n[1, 2, 3]: road\nrest: ignore\n",
            [0, 255, 255, 255],
            [0, 255],
        ),
    ):
        path.write_text(text)
        mapping = load_mapping(path)
        assert mapping.read_label(tmp_path / "ids.png")[0].tolist() == ids
        assert mapping.read_label(tmp_path / "rgb.png")[0].tolist() == colours
    path.write_text("classes: [road, other]\n0: road\nrest: sofa\n")
    with pytest.raises(UsageError, match="rest: 'sofa' is not a class"):
        load_mapping(path)
    (tmp_path / "names.yaml").write_text("classes: [road, other]\nrest: other\n")
    summary = prepare.prepare_layout(
        "kitti", kitti(tmp_path / "raw"), how(tmp_path), name="k", mapping=tmp_path / "names.yaml"
    )
    dataset = PreparedDataset(summary.folder)
    assert np.unique(dataset.label(dataset.items("val")[0])).tolist() == [0, 1]
    # the images of this test are plain
    assert not [text for text in summary.warnings if "of one colour" not in text]


def test_many_ignored_pixels_are_said(tmp_path):
    (tmp_path / "map.yaml").write_text("classes: [road]\n")
    summary = prepare.prepare_layout(
        "kitti", kitti(tmp_path / "raw"), how(tmp_path), name="k", mapping=tmp_path / "map.yaml"
    )
    assert any(
        "69 % of the pixels are ignored" in warning and "`rest: other`" in warning
        for warning in summary.warnings
    )
