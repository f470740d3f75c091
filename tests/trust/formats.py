"""Malformed labels in every layout and format but those of images.py: the file is refused by name,
the rest goes on.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tests.trust.images import encoded, flipped, png
from tests.trust.world import Case, World, call, clear, nothing_half_written

SIZE = (256, 128)


@dataclass(frozen=True)
class Place:
    """Where a layout has image and label number `{}`, a label value that it knows, and malformed
    files that it may read.
    """

    image: str
    label: str
    value: int | tuple[int, int, int]
    legal: tuple[str, ...] = ()

    def good(self) -> bytes:
        label = np.full(
            (SIZE[1], SIZE[0], *((3,) if isinstance(self.value, tuple) else ())),
            self.value,
            np.uint8,
        )
        return png(label)


PLACES = {
    "bdd100k": Place("images/10k/val/{}.jpg", "labels/sem_seg/masks/val/{}.png", 13),
    "urbansyn": Place("rgb/rgb_{}.png", "ss/ss_{}.png", 13),
    "synscapes": Place("img/rgb/{}.png", "img/class/{}.png", 26),
    "wilddash2": Place(
        "images/{}.jpg",
        "labels/{}.png",
        26,
        legal=("noise ids", "one bad id", "16 bit", "grey and alpha"),
    ),
    "kitti": Place("training/image_2/{}.png", "training/semantic/{}.png", 26),
    "mapillary": Place("validation/images/{}.jpg", "validation/labels/{}.png", 55),
    "vkitti2": Place(
        "S/v/frames/rgb/Camera_0/rgb_{}.jpg",
        "S/v/frames/classSegmentation/Camera_0/classgt_{}.png",
        (100, 60, 100),
    ),
    "acdc": Place("rgb_anon/fog/val/a/{}_rgb_anon.png", "gt/fog/val/a/{}_gt_labelTrainIds.png", 13),
    "darkzurich": Place(
        "rgb_anon/val/night/a/{}_rgb_anon.png", "gt/val/night/a/{}_gt_labelTrainIds.png", 13
    ),
    "idd": Place(
        "leftImg8bit/val/0/{}_leftImg8bit.png", "gtFine/val/0/{}_gtFine_labelcsTrainIds.png", 13
    ),
    "iddlite": Place("leftImg8bit/val/0/{}_image.jpg", "gtFine/val/0/{}_label.png", 6),
    "camvid": Place(
        "701_StillsRaw_full/0016E5_0{}.png", "LabeledApproved_full/0016E5_0{}_L.png", (128, 64, 128)
    ),
    "carla": Place("i/{}.png", "l/{}.png", (24, 0, 0)),
    "voc": Place("JPEGImages/{}.jpg", "SegmentationClass/{}.png", (128, 64, 128)),
}
# which CamVid's validation part has too
FIRST = "7961"
SECOND = "7963"


def cases(world: World) -> Iterator[Case]:
    for kind, place in PLACES.items():
        for name, content in bad_labels().items():
            if name not in place.legal:
                yield f"label of {kind}: {name}", lambda k=kind, c=content: label(world, k, c)
    for seed in range(6):
        for kind in ("carla", "voc", "camvid", "urbansyn"):
            yield (
                f"label of {kind}: flipped {seed}",
                lambda k=kind, s=seed: label(world, k, flipped(PLACES[k].good(), s), may_pass=True),
            )
    yield from documents(world)


def bad_labels() -> dict[str, bytes]:
    grey = np.full(SIZE[::-1], 7, np.uint8)
    return {
        "empty": b"",
        "text": b"no",
        "cut": encoded("L", "PNG", SIZE)[:800],
        "noise ids": encoded("L", "PNG", SIZE),
        "other size": png(grey[:64]),
        "unknown colours": encoded("RGB", "PNG", SIZE),
        "rgba": encoded("RGBA", "PNG", SIZE),
        "16 bit": png(np.full(SIZE[::-1], 300, np.uint16)),
        "1x1": png(grey[:1, :1]),
        "zeros": bytes(3000),
        "one bad id": png(np.where(np.arange(SIZE[0]) == 9, 99, grey).astype(np.uint8)),
        "grey and alpha": encoded("LA", "PNG", SIZE),
    }


def label(world: World, kind: str, content: bytes, may_pass: bool = False) -> None:
    """Two pairs, the second label malformed: one is prepared, the other refused by name."""
    folder = world.folder("format")
    place = PLACES[kind]
    for number, data in ((FIRST, place.good()), (SECOND, content)):
        suffix = "JPEG" if place.image.endswith("jpg") else "PNG"
        for pattern, text in ((place.image, encoded("RGB", suffix, SIZE)), (place.label, data)):
            path = folder / "raw" / pattern.format(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
    raw = folder / "raw"
    (raw / "labelmap.txt").write_text("road:128,64,128::\n")
    for needed in ("training/images", "rgb_anon/train/night", "images/10k/train"):
        (raw / needed).mkdir(parents=True, exist_ok=True)
    where = (
        ("--images", raw / "i", "--labels", raw / "l", "--carla-version", "new")
        if kind == "carla"
        else ("--root", raw)
    )
    done = call(
        "prepare",
        kind,
        *where,
        "--name",
        kind,
        "--out",
        folder / "out",
        "--size",
        "64x32",
        "--workers",
        1,
    )
    clear(done, (0,))
    problems = json.loads((folder / "out" / kind / "problems.json").read_text())
    assert may_pass or (
        len(problems) == 1 and SECOND in problems[0]["file"] and problems[0]["reason"]
    ), problems
    nothing_half_written(folder)


# Documents


def coco_tree() -> dict:
    outline = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 200, 0, 200, 100, 0, 100]]}
    image = {"id": 1, "file_name": "a.png", "width": SIZE[0], "height": SIZE[1]}
    return {"images": [image], "annotations": [outline], "categories": [{"id": 1, "name": "road"}]}


def labelme_tree() -> dict:
    shape = {"label": "road", "points": [[0, 0], [200, 0], [200, 100]], "shape_type": "polygon"}
    return {"shapes": [shape], "imageHeight": SIZE[1], "imageWidth": SIZE[0]}


def documents(world: World) -> Iterator[Case]:
    texts = {
        "empty": b"",
        "text": b"no",
        "a list": b"[]",
        "an object": b"{}",
        "deep": b"[" * 200000,
        "bytes": bytes(range(256)),
        "null": b"null",
        "deep object": b'{"a":' * 100000,
        "huge number": b'{"images": ' + b"9" * 5000 + b"}",
    }
    trees = {"coco": coco_tree(), "labelme": labelme_tree()}
    for kind, tree in trees.items():
        for name, text in texts.items():
            yield f"{kind}: {name}", lambda k=kind, t=text: document(world, k, t)
        for seed in range(40):
            yield (
                f"{kind}: changed {seed}",
                lambda k=kind, t=tree, s=seed: document(world, k, changed(t, s)),
            )
    for name, text in {
        "bytes": bytes(range(256)),
        "no colour": b"road",
        "huge": b"road:" + b"9" * 5000 + b",1,2::",
        "none": b"",
    }.items():
        yield f"labelmap.txt: {name}", lambda t=text: labelmap(world, t)


def changed(tree: dict, seed: int) -> bytes:
    """The tree with one value somewhere replaced by one of another kind."""
    rng = random.Random(seed)
    tree = json.loads(json.dumps(tree))
    node: dict | list = tree
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if not isinstance(node[key], (dict, list)) or not node[key] or rng.random() < 0.2:
            break
        node = node[key]
    node[key] = rng.choice(
        [
            None,
            -1,
            0,
            1e308,
            float("nan"),
            "x" * 5000,
            [],
            {},
            True,
            10**30,
            [[[]]],
            "\x1b[31m",
            {"size": [1]},
        ]
    )
    return json.dumps(tree).encode()


def document(world: World, kind: str, text: bytes) -> None:
    """One good pair beside it: prepared, refused by name or a clear line."""
    folder = world.folder("document")
    (folder / "in").mkdir()
    for name in ("a", "b"):
        Image.open(io.BytesIO(encoded("RGB", "PNG", SIZE))).save(folder / f"in/{name}.png")
    (folder / "in/a.json").write_bytes(text)
    (folder / "in/b.json").write_text(json.dumps(labelme_tree()))
    labels = folder / ("in/a.json" if kind == "coco" else "in")
    done = call(
        "prepare",
        kind,
        "--images",
        folder / "in",
        "--labels",
        labels,
        "--name",
        "x",
        "--out",
        folder / "out",
        "--size",
        "64x32",
        "--workers",
        1,
    )
    clear(done, (0, 1, 2))
    assert "\x1b" not in done.err
    nothing_half_written(folder)
    if done.code == 0:
        problems = json.loads((folder / "out/x/problems.json").read_text())
        assert all(problem["reason"] for problem in problems)


def labelmap(world: World, text: bytes) -> None:
    folder = world.folder("labelmap")
    place = PLACES["voc"]
    for pattern, content in (
        (place.image, encoded("RGB", "JPEG", SIZE)),
        (place.label, place.good()),
    ):
        path = folder / pattern.format(1)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "labelmap.txt").write_bytes(text)
    clear(call("prepare", "voc", "--root", folder, "--out", folder / "out"), (1, 2), "label")
