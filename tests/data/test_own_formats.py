"""CARLA, COCO, Labelme, VOC and CVAT, own folders with suffixes: files built as their tools write
them.
"""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fgda_cli.data.classes import NAMES, PALETTE
from fgda_cli.data.images import BadFile, write_image
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.prepare import How, prepare_own
from fgda_cli.data.shapes import Shape, Shapes, decode_runs, draw, inside
from fgda_cli.data.store import PreparedDataset
from fgda_cli.runtime.errors import FgdaError, UsageError
from fgda_cli.runtime.reporter import Reporter

ROAD, BUILDING, SKY, CAR = (NAMES.index(name) for name in ("road", "building", "sky", "car"))
WIDTH = 64
HEIGHT = 48


def picture(path):
    write_image(path, np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


def grid(*values) -> np.ndarray:
    """Vertical stripes of equal width."""
    return np.repeat(np.array([values], np.uint8), HEIGHT, axis=0).repeat(
        WIDTH // len(values), axis=1
    )


class Own:
    def __init__(self, root):
        self.root = root
        self.decisions = []

    def run(self, kind, **options):
        files = OwnFiles(**options)
        how = How(
            self.root.with_name(f"{self.root.name}-out"),
            workers=1,
            reporter=Reporter(quiet=True, decisions=self.decisions),
        )
        summary = prepare_own(kind, files, "set", how=how)
        return summary, PreparedDataset(self.root.with_name(f"{self.root.name}-out") / "set")

    def label(self, kind, **options) -> np.ndarray:
        _, dataset = self.run(kind, **options)
        return dataset.label(dataset.items(options.get("split", "train"), labelled=True)[0])


@pytest.fixture
def own(tmp_path):
    return Own(tmp_path)


# Areas


def test_a_square_covers_the_pixels_whose_centres_it_holds():
    mask = inside((16, 16), [[(2, 3), (5, 3), (5, 4), (2, 4)]])
    assert mask.sum() == 3 and mask[3, 2:5].all()  # one row, not two
    square = [(0, 0), (10, 0), (10, 10), (0, 10)]
    inner = [(2, 2), (4, 2), (4, 4), (2, 4)]
    assert inside((16, 16), [square, inner]).sum() == 100, (
        "parts of one object that overlap are united"
    )
    assert inside((16, 16), [square, square]).sum() == 100, "an outline given twice is there once"
    assert inside((16, 16), [square, [(5, 5), (12, 5), (12, 12), (5, 12)]]).sum() == 100 + 49 - 25
    assert inside((4, 4), [[(-10, -10), (20, -10), (20, 20), (-10, 20)]]).all()


@given(st.lists(st.tuples(st.floats(-5, 25), st.floats(-5, 25)), min_size=3, max_size=8))
def test_areas_are_those_of_counting_crossings_at_each_centre(points):
    mask = inside((20, 20), [points])
    for y, x in ((0, 0), (7, 3), (10, 10), (19, 19), (4, 16)):
        odd = False
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            if (y0 <= y + 0.5) != (y1 <= y + 0.5):
                crossing = x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                if abs(crossing - x - 0.5) < 1e-6:
                    # on the line: either is right
                    return
                odd ^= crossing < x + 0.5
        assert mask[y, x] == odd


def test_run_lengths_go_down_the_columns_zeros_first():
    mask = decode_runs((3, 2), {"size": [2, 3], "counts": [1, 2, 3]})
    assert mask.tolist() == [[False, True, False], [True, False, False]]


def test_compressed_run_lengths_are_those_of_the_common_tools():
    """The counts 12, 3, 5, 40, 70, 30 as their C code packs them: from the fourth on, the
    difference to the one two before.
    """

    def packed(counts):
        text = ""
        for index, count in enumerate(counts):
            value = count - counts[index - 2] if index > 2 else count
            more = True
            while more:
                bits = value & 31
                value = value >> 5
                more = value != (-1 if bits & 16 else 0)
                text += chr((bits | (32 if more else 0)) + 48)
        return text

    counts = [12, 3, 5, 40, 70, 30]
    plain = decode_runs((16, 10), {"size": [10, 16], "counts": counts})
    assert (
        decode_runs((16, 10), {"size": [10, 16], "counts": packed(counts)}) == plain
    ).all() and plain.sum() == 73


@pytest.mark.parametrize(
    "runs",
    [
        {"size": [2, 3], "counts": [1, 2]},
        {"size": [3, 2], "counts": [6]},
        {"counts": [6]},
        {"size": [2, 3], "counts": "~~~"},
        {"size": [2, 3], "counts": [-1, 7]},
        {"size": [2, 3], "counts": [1.5, 4.5]},
        {"size": [2, 3]},
        [6],
        "PPP" * 30,
        {"size": [2, 3], "counts": "P" * 100},
        {"size": [2, 3], "counts": [True] * 6},
    ],
)
def test_run_lengths_that_do_not_fit_are_refused(runs):
    with pytest.raises(BadFile, match="run lengths"):
        decode_runs((3, 2), runs)


@pytest.mark.parametrize(
    "polygon",
    [
        [],
        [(1, 1)],
        [(1, 2), (3, 4)],
        [(1, 2), (3, float("nan")), (5, 6)],
        [(1, 2, 3)] * 3,
        [("a", "b")] * 3,
        None,
        [(1e300, 0), (1, 1), (2, 2)],
        [(10**400, 1)] * 3,
    ],
)
def test_outlines_that_are_none_are_refused(polygon):
    with pytest.raises(BadFile, match="an outline"):
        inside((8, 8), [polygon])


def test_later_shapes_cover_earlier_ones_and_the_rest_is_ignored():
    square = ((0, 0), (4, 0), (4, 4), (0, 4))
    label = draw(
        Shapes(
            (8, 4),
            (Shape(1, (square,)), Shape(2, (square[:3],)), Shape(3, mask=(6, -1, np.ones((3, 9))))),
        )
    )
    assert (
        label[3, 0] == 1 and label[0, 3] == 2 and (label[:2, 6:] == 3).all() and label[3, 6] == 255
    )
    with pytest.raises(BadFile, match="said to be"):
        draw(Shapes((10**6, 10**6), ()))


# CARLA

OLD = grid(7, 13, 9, 10, 6, 1, 12, 0)
NEW = grid(1, 11, 9, 14, 24, 3, 8, 0)
MEANS = [ROAD, SKY, 8, CAR, ROAD, BUILDING, 7, 255]


def carla_tree(root, ids, colours=False):
    picture(root / "rgb/0001.png")
    if colours:
        write_image(
            root / "seg/0001.png",
            np.array(colours, np.uint8)[None].repeat(HEIGHT, 0).repeat(WIDTH // len(colours), 1),
        )
    else:
        write_image(root / "seg/0001.png", np.dstack([ids, np.zeros_like(ids), np.zeros_like(ids)]))
    return {"images": root / "rgb", "labels": root / "seg"}


@pytest.mark.parametrize("version, ids", [("old", OLD), ("new", NEW)])
def test_carla_tags_of_both_versions_lie_in_the_red_channel(own, version, ids):
    label = own.label("carla", carla_version=version, **carla_tree(own.root, ids))
    assert label[0, :: WIDTH // 8].tolist() == MEANS
    assert any("0.9.1" in decision for decision in own.decisions)


@pytest.mark.parametrize(
    "ids, version, words",
    [
        (OLD, None, "this points to old, but it is no proof"),
        (NEW, None, "id 24 does not exist before 0.9.14, so they are new"),
        (NEW, "old", "use --carla-version new"),
        (grid(9, 9), None, "say --carla-version"),
    ],
)
def test_carla_ids_that_contradict_the_version_are_refused(own, ids, version, words):
    with pytest.raises(UsageError, match=words):
        own.run("carla", carla_version=version, **carla_tree(own.root, ids))


@pytest.mark.parametrize(
    "ids, version, other",
    [
        (OLD, "new", "old"),
        (grid(1, 11, 9, 14), "old", "new"),
        # up to 0.9.9: the sky is 0, the buildings 1
        (grid(0, 0, 0, 1, 1, 9, 10, 11), "old", "new"),
    ],
)
def test_carla_ids_in_doubt_are_read_as_asked_for_and_the_doubt_is_said(own, ids, version, other):
    """Case 36: what is usual of a street is no proof."""
    summary, _ = own.run("carla", carla_version=version, **carla_tree(own.root, ids))
    assert summary.images == {"train": 1}
    doubts = [
        decision
        for decision in own.decisions
        if f"more usual of --carla-version {other}" in decision
    ]
    assert len(doubts) == 1 and "road and sky cover" in doubts[0]


def test_carla_colours_need_no_version(own):
    label = own.label(
        "carla",
        **carla_tree(
            own.root, None, [(128, 64, 128), (157, 234, 50), (70, 130, 180), (55, 90, 80)]
        ),
    )
    assert label[0, ::16].tolist() == [ROAD, ROAD, SKY, 255]


def test_carla_ids_outside_the_table_are_refused_by_file(own):
    files = carla_tree(own.root, NEW)
    picture(own.root / "rgb/2.png")
    write_image(own.root / "seg/2.png", np.dstack([grid(1, 40), grid(0, 0), grid(0, 0)]))
    summary, _ = own.run("carla", carla_version="new", **files)
    assert summary.images == {"train": 1} and "an id outside the table" in summary.reasons


# VOC, CVAT


def voc_tree(
    root,
    labels,
    labelmap=(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nRoad:128,64,128::\nblimp:1,2,3::\n"
    ),
):
    for name, label in labels.items():
        picture(root / f"JPEGImages/{name}.jpg")
        (root / "SegmentationClass").mkdir(exist_ok=True)
        label.save(root / f"SegmentationClass/{name}.png")
    (root / "labelmap.txt").write_text(labelmap)
    return {"root": root}


def as_palette(ids, colours) -> Image.Image:
    image = Image.fromarray(ids)
    image.putpalette([part for colour in colours for part in colour])
    return image


def test_voc_colours_by_name_in_rgb_and_palette(own):
    colours = [(0, 0, 0), (128, 64, 128), (1, 2, 3), (224, 224, 192)]
    palette = as_palette(grid(0, 1, 2, 3), colours)
    files = voc_tree(own.root, {"a": palette.convert("RGB"), "b": palette})
    _, dataset = own.run("voc", **files)
    for item in dataset.items("train", labelled=True):
        assert dataset.label(item)[0, ::16].tolist() == [255, ROAD, 255, 255]
    assert sum("names of no class, ignored: blimp (" in decision for decision in own.decisions) == 1


def test_voc_splits_by_its_lists_and_maps_by_name(own):
    files = voc_tree(
        own.root,
        {name: Image.fromarray(np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8)) for name in "abc"},
    )
    (own.root / "ImageSets/Segmentation").mkdir(parents=True)
    (own.root / "ImageSets/Segmentation/train.txt").write_text("a\nnone\n")
    (own.root / "ImageSets/Segmentation/val.txt").write_text("b\n")
    (own.root / "map.yaml").write_text("classes: [ground, flyer]\nblimp: flyer\nroad: ground\n")
    summary, dataset = own.run("voc", mapping=own.root / "map.yaml", **files)
    assert summary.images == {"train": 1, "val": 1} and summary.refused == 1
    assert (dataset.label(dataset.items("val")[0]) == 1).all()
    summary, _ = own.run("voc", only=("a.*",), mapping=own.root / "map.yaml", **files)
    # the name that no file has, not those left out
    assert summary.images == {"train": 1} and summary.refused == 1


def test_an_export_without_images_takes_them_from_elsewhere(own):
    files = voc_tree(
        own.root / "set",
        {
            name: Image.fromarray(np.full((HEIGHT, WIDTH, 3), (128, 64, 128), np.uint8))
            for name in "ab"
        },
    )
    (own.root / "set/JPEGImages").rename(own.root / "footage")
    picture(own.root / "footage/unlabelled.jpg")
    with pytest.raises(
        FgdaError, match="exported without images: say where they are with --images"
    ):
        own.run("voc", **files)
    summary, dataset = own.run("voc", images=own.root / "footage", **files)
    assert summary.images == {"train": 2} and not summary.refused
    assert [item.name for item in dataset.items("train", labelled=True)] == ["a", "b"]


BLIMP = np.full((HEIGHT, WIDTH, 3), (1, 2, 3), np.uint8)


@pytest.mark.parametrize(
    "train, val", [("Train", "Validation"), ("training", "valid"), ("train", "val")]
)
def test_voc_lists_are_splits_by_their_names_and_names_may_have_spaces(own, train, val):
    """Case 28."""
    files = voc_tree(
        own.root, {name: Image.fromarray(BLIMP) for name in ("frame 001", "frame 002", "c")}
    )
    lists = own.root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / f"{train}.txt").write_text("frame 001\r\n\nc \n", encoding="utf-8-sig")
    (lists / f"{val}.txt").write_text("frame 002\n")
    (lists / "odd.txt").write_text("c\n")
    (own.root / "map.yaml").write_text("classes: [flyer]\nblimp: flyer\n")
    summary, dataset = own.run("voc", mapping=own.root / "map.yaml", **files)
    assert summary.images == {"train": 2, "val": 1} and summary.refused == 0
    assert [item.name for item in dataset.items("val")] == ["frame 002"]
    assert any("not used: odd.txt" in decision for decision in own.decisions)


def test_voc_lists_of_unknown_names_are_asked_about(own):
    files = voc_tree(own.root, {"a": Image.fromarray(BLIMP)})
    (own.root / "ImageSets/Segmentation").mkdir(parents=True)
    (own.root / "ImageSets/Segmentation/part7.txt").write_text("a\n")
    (own.root / "map.yaml").write_text("classes: [flyer]\nblimp: flyer\n")
    with pytest.raises(UsageError, match=r"part7.txt: name a list train.txt or val.txt"):
        own.run("voc", mapping=own.root / "map.yaml", **files)


def test_cvats_default_list_is_the_split_that_is_asked_for(own):
    files = voc_tree(own.root, {name: Image.fromarray(BLIMP) for name in "ab"})
    (own.root / "ImageSets/Segmentation").mkdir(parents=True)
    (own.root / "ImageSets/Segmentation/default.txt").write_text("a\nb\n")
    (own.root / "map.yaml").write_text("classes: [flyer]\nblimp: flyer\n")
    assert own.run("voc", mapping=own.root / "map.yaml", split="val", **files)[0].images == {
        "val": 2
    }


@pytest.mark.parametrize(
    "labelmap, words",
    [
        ("road", "line 1: no `name:r,g,b"),
        ("road:1,2::", "line 1"),
        ("road:1,2,300::", "line 1"),
        ("a:1,2,3::\nb:1,2,3::", "colour of a"),
        ("blimp:1,2,3::", "no label name is a class: blimp"),
        ("", "no label name is a class: there is none"),
    ],
)
def test_voc_label_maps_that_do_not_fit_say_where(own, labelmap, words):
    files = voc_tree(own.root, {"a": Image.fromarray(grid(0, 1))}, labelmap)
    with pytest.raises((FgdaError, UsageError), match=words):
        own.run("voc", **files)


# COCO


def coco_tree(root, drawn, names=("road", "traffic_light", "blimp"), **changes):
    picture(root / "in/town/a.jpg")
    picture(root / "in/b.jpg")
    images = [
        {"id": 7, "file_name": "town/a.jpg", "width": WIDTH, "height": HEIGHT},
        {"id": 9, "file_name": "elsewhere/b.jpg", "width": WIDTH, "height": HEIGHT},
    ]
    tree = {
        "images": images,
        "annotations": drawn,
        "categories": [{"id": 3 * k, "name": n} for k, n in enumerate(names)],
    }
    (root / "all.json").write_text(json.dumps(tree | changes))
    return {"images": root / "in", "labels": root / "all.json"}


def test_coco_outlines_and_runs_in_file_order(own):
    annotations = [
        {"image_id": 7, "category_id": 0, "segmentation": [[0, 0, 64, 0, 64, 48, 0, 48]]},
        {
            "image_id": 7,
            "category_id": 3,
            "segmentation": [[0, 0, 8, 0, 8, 8, 0, 8], [16, 0, 20, 0, 20, 4, 16, 4]],
        },
        {
            "image_id": 7,
            "category_id": 6,
            "segmentation": {"size": [48, 64], "counts": [48 * 60, 48 * 4]},
            "iscrowd": 1,
        },
    ]
    _, dataset = own.run("coco", **coco_tree(own.root, annotations))
    labels = {item.name: dataset.label(item) for item in dataset.items("train", labelled=True)}
    assert labels["town/a"][0, [0, 7, 8, 16, 20, 59, 60]].tolist() == [
        6,
        6,
        ROAD,
        6,
        ROAD,
        ROAD,
        255,
    ]
    # found by its name alone
    assert (labels["b"] == 255).all()
    assert sum("ignored: blimp" in decision for decision in own.decisions) == 1


def test_coco_edited_annotations_convert_that_image_again(own):
    square = [[0, 0, 64, 0, 64, 48, 0, 48]]
    own.run(
        "coco", **coco_tree(own.root, [{"image_id": 9, "category_id": 0, "segmentation": square}])
    )
    tree = coco_tree(own.root, [{"image_id": 9, "category_id": 3, "segmentation": square}])
    _, dataset = own.run("coco", **tree)
    assert {item.name: int(dataset.label(item)[0, 0]) for item in dataset.items("train")} == {
        "town/a": 255,
        "b": 6,
    }


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"images": 5}, "needs a list `images`"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] has no name"),
        (
            {"annotations": [{"image_id": 7, "category_id": 99}]},
            "of category 99, which is not there",
        ),
        (
            {"annotations": [{"image_id": "7", "category_id": 0}]},
            r"annotations\[0\] has no image_id",
        ),
        ({"categories": [{"id": 0, "name": "blimp"}]}, "no label name is a class: blimp"),
    ],
)
def test_coco_files_that_are_none_say_where(own, changes, words):
    with pytest.raises((FgdaError, UsageError), match=words):
        own.run("coco", **coco_tree(own.root, [], **changes))


@pytest.mark.parametrize(
    "segmentation",
    [[], None, [[1, 2, 3]], "x", [[1, 2, 3, 4]], {"size": [1, 1], "counts": [1]}, [["a"] * 6], [5]],
)
def test_coco_outlines_that_are_none_refuse_their_image_alone(own, segmentation):
    annotations = [{"image_id": 9, "category_id": 0, "segmentation": segmentation}]
    summary, _ = own.run("coco", **coco_tree(own.root, annotations))
    assert summary.images == {"train": 1} and summary.refused == 1


def test_coco_of_another_size_than_its_image_is_refused(own):
    images = [
        {"id": 7, "file_name": "town/a.jpg", "width": 60, "height": HEIGHT},
        {"id": 1, "file_name": "b.jpg", "width": 64, "height": 48},
    ]
    summary, _ = own.run("coco", **coco_tree(own.root, [], images=images))
    assert summary.images == {"train": 1} and list(summary.reasons) == ["sizes differ"]


# Labelme


def labelme_tree(root, shapes, **changes):
    picture(root / "in/a.jpg")
    tree = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": "a.jpg",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    }
    (root / "in/a.json").write_text(json.dumps(tree | changes))
    return {"images": root / "in"}


def mask_text() -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.eye(4, dtype=np.uint8) * 255).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_labelme_shapes_of_every_kind(own):
    shapes = [
        {
            "label": "Road",
            "points": [[0, 24], [64, 24], [64, 48], [0, 48]],
            "shape_type": "polygon",
        },
        {"label": "sky", "points": [[64, 10], [32, 0]], "shape_type": "rectangle"},
        {"label": "traffic-sign", "points": [[10, 10], [10, 14]], "shape_type": "circle"},
        {"label": "car", "points": [[20, 30], [24, 34]], "shape_type": "mask", "mask": mask_text()},
        {"label": "pole", "points": [[1, 1], [1, 9]], "shape_type": "line"},
    ]
    label = own.label("labelme", **labelme_tree(own.root, shapes))
    assert (
        label[47, 0] == ROAD
        and label[0, 32] == SKY
        and label[9, 63] == SKY
        and label[10, 63] == 255
    )
    assert 44 <= (label == 7).sum() <= 54  # pi 4^2
    assert [label[30 + k, 20 + k] for k in range(4)] == [CAR] * 4 and label[30, 21] == ROAD
    assert not (label == NAMES.index("pole")).any()


@pytest.mark.parametrize(
    "shapes, changes",
    [
        ([{"label": "road", "points": [[0, 0]], "shape_type": "rectangle"}], {}),
        ([{"label": "road", "points": 5}], {}),
        ([{"label": "road", "points": [[0, 0], [1, 1]], "shape_type": "cube"}], {}),
        ([{"label": "road", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": "!!"}], {}),
        ([{"label": "road", "points": [[0, 0], [9, 0], [9, 9]]}], {"imageWidth": None}),
        ([{"label": "road", "points": [[0, 0], [9, 0], [9, 9]]}], {"imageWidth": 10**9}),
        ([{"label": "road", "points": [[float("nan"), 0], [1, 1]], "shape_type": "circle"}], {}),
        ([{"label": "road", "points": [[0, 0], [9, 0], [9, 9]]}], {"imageWidth": 32}),
    ],
)
def test_labelme_files_that_do_not_fit_are_refused_by_name(own, shapes, changes):
    files = labelme_tree(own.root, shapes, **changes)
    picture(own.root / "in/b.jpg")
    (own.root / "in/b.json").write_text(
        json.dumps(
            {
                "shapes": [{"label": "road", "points": [[0, 0], [9, 0], [9, 9]]}],
                "imageHeight": HEIGHT,
                "imageWidth": WIDTH,
            }
        )
    )
    summary, dataset = own.run("labelme", **files)
    assert [item.name for item in dataset.items("train")] == ["b"] and summary.refused == 1


# Own folders


@pytest.mark.parametrize(
    "image, label, options",
    [
        ("a{}_rgb.png", "a{}_seg.png", "--image-suffix _rgb.png --label-suffix _seg.png"),
        (
            "f{}_leftImg8bit.jpg",
            "f{}_gtFine_labelIds.png",
            "--image-suffix _leftImg8bit.jpg --label-suffix _gtFine_labelIds.png",
        ),
        ("{}.png", "{}-mask.png", "--image-suffix .png --label-suffix -mask.png"),
        ("a.{}.rgb.png", "a.{}.png", "--image-suffix .rgb.png --label-suffix .png"),
    ],
)
def test_names_with_suffixes_pair_nothing_and_say_what_would(own, image, label, options):
    for number in range(12):
        picture(own.root / "i" / image.format(number))
        write_image(own.root / "l" / label.format(number), grid(7, 26))
    folders = {"images": own.root / "i", "labels": own.root / "l", "label_ids": "label"}
    with pytest.raises(UsageError, match=options):
        own.run("folder", **folders)
    words = options.split()
    summary, _ = own.run("folder", image_suffix=words[1], label_suffix=words[3], **folders)
    assert summary.images == {"train": 12}


def test_names_that_have_nothing_in_common_say_so(own):
    picture(own.root / "i/a.png")
    write_image(own.root / "l/b.png", grid(7))
    with pytest.raises(UsageError, match="need the same names"):
        own.run("folder", images=own.root / "i", labels=own.root / "l")


def test_images_and_labels_in_one_folder_by_their_suffixes(own):
    picture(own.root / "all/x_rgb.png")
    write_image(own.root / "all/x_seg.png", grid(7, 26))
    files = {
        "images": own.root / "all",
        "labels": own.root / "all",
        "image_suffix": "_rgb.png",
        "label_suffix": "_seg.png",
    }
    label = own.label("folder", label_ids="label", **files)
    assert label[0, ::32].tolist() == [ROAD, CAR]


def test_only_takes_the_files_that_fit(own):
    for name in ("day/1", "day/2", "dusk/1"):
        picture(own.root / f"in/{name}.png")
    summary, dataset = own.run("folder", images=own.root / "in", only=("day/*",))
    assert [item.name for item in dataset.items("train")] == ["day/1", "day/2"]


@pytest.mark.parametrize(
    "kind, options, words",
    [
        ("coco", {"label_ids": "train"}, "takes no --label-ids"),
        ("folder", {"carla_version": "old"}, "takes no --carla-version"),
        ("voc", {"labels": "x"}, "takes no --labels"),
        ("coco", {}, "needs --images DIR and --labels"),
        ("voc", {}, "needs --root"),
        ("labelme", {}, "needs --images"),
    ],
)
def test_options_that_would_do_nothing_are_refused(own, kind, options, words):
    with pytest.raises(UsageError, match=words):
        own.run(kind, **options)


def test_palette_of_cityscapes_is_read_where_carla_uses_it():
    from fgda_cli.data.layouts.carla import COLOURS

    shared = {colour: train_id for train_id, colour in enumerate(PALETTE)}
    assert all(COLOURS.get(colour, train_id) == train_id for colour, train_id in shared.items())
