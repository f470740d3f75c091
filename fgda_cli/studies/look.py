"""The viewer of the pages: images, the label maps and entropies of up to four checkpoints, to look
around in, offline.
"""

from __future__ import annotations

import base64
import colorsys
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from ..data.classes import ClassMatch, ClassSet
from ..data.geometry import resize_ids, resize_image
from ..metrics import ConfusionMatrix
from ..visual import html
from .compare import Scene

# the viewer's markup and script
VISUAL = Path(__file__).parent.parent / "visual"
# orders of the frames (look.js)
Sort = Literal["order", "changed", "worst", "lost"]
# pixels of a picture in the page
WIDEST = 1024
QUALITY = 80  # of photographs
MOST_CHECKPOINTS = 4
# Okabe and Ito's colours, which people with any common colour blindness tell apart; darker and
# paler beyond the first seven.
SAFE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def script() -> str:
    """Return the viewer's script, which a page with a `viewer` runs."""
    return (VISUAL / "look.js").read_text(encoding="utf-8")


def viewer(
    scenes: Iterable[Scene],
    names: list[str],
    own: list[ClassSet],
    classes: ClassSet,
    sort: Sort = "order",
) -> str:
    """Return the HTML of a viewer. Scenes hold a prediction for each of up to MOST_CHECKPOINTS
    checkpoints, whose names and classes are `names` and `own`; `classes` has every class of theirs
    and of the scenes once. `sort` is the order in which the frames come at first.
    """
    frames = [
        _frame(scene, number, scene.predictions, own=own, classes=classes)
        for number, scene in enumerate(scenes, 1)
    ]
    data = {
        "names": names,
        "classes": list(classes.names),
        "frames": frames,
        "sort": sort,
        "palettes": {
            "own": [list(colour) for colour in classes.palette],
            "safe": safe_palette(len(classes)),
        },
    }
    markup = (VISUAL / "look.html").read_text(encoding="utf-8")
    # A name with </script> in it must not end the script.
    return markup.replace("@DATA@", json.dumps(data, ensure_ascii=False).replace("<", "\\u003c"))


def of_how_many(count: int) -> str:
    """Return what a page with a viewer says where it shows some of `count` checkpoints."""
    if count <= MOST_CHECKPOINTS:
        return ""
    return f" They show the first {MOST_CHECKPOINTS} of {count} checkpoints."


def look_page(
    scenes: Iterable[Scene], names: list[str], own: list[ClassSet], classes: ClassSet
) -> str:
    """Return a page of the viewer alone."""
    content = viewer(scenes, names, own, classes=classes)
    return html.page(" and ".join(names), [], content, script=script())


def _frame(
    scene: Scene, number: int, predictions: list[dict], own: list[ClassSet], classes: ClassSet
) -> dict[str, Any]:
    """Return the page's data of one image; maps are reduced to the page's largest width."""
    height, width = scene.image.shape[:2]
    scale = min(1.0, WIDEST / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    ids = [
        ClassMatch(classes, theirs).table()[one["train_ids"]]
        for one, theirs in zip(predictions, own, strict=True)
    ]
    frame: dict[str, Any] = {
        "name": scene.name or f"image {number}",
        "w": size[0],
        "h": size[1],
        "photo": _data("webp", resize_image(scene.image, size)[..., ::-1], QUALITY),
        "ids": [_data("png", resize_ids(one, size)) for one in ids],
        "entropy": [_data("webp", _grey(one["entropy"], size), QUALITY) for one in predictions],
        "unsure": [float(one["entropy"].mean()) for one in predictions],
        "changed": 100 * float(np.mean(ids[0] != ids[-1])),
        # share of the pixels by class, as the last checkpoint predicts them
        "shares": (np.bincount(ids[-1].ravel(), minlength=256)[: len(classes)] / ids[-1].size)
        .round(5)
        .tolist(),
    }
    if scene.truth is not None:
        truth = ClassMatch(classes, scene.classes).table()[scene.truth]
        scores = [_miou(resize_ids(one, truth.shape[::-1]), truth, len(classes)) for one in ids]
        frame |= {"truth": _data("png", resize_ids(truth, size))} | (
            {"miou": scores} if None not in scores else {}
        )
    return frame


def _miou(ids: np.ndarray, truth: np.ndarray, count: int) -> float | None:
    counts = ConfusionMatrix(count)
    counts.update(truth, ids)
    return counts.miou()


def _grey(entropy: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    grey = (np.clip(entropy, 0, 1) * 255).astype(np.uint8)
    half = tuple(max(1, side // 2) for side in size)
    return cv2.resize(grey, half, interpolation=cv2.INTER_AREA)


def _data(image_format: str, pixels: np.ndarray, quality: int | None = None) -> str:
    how = [] if quality is None else [cv2.IMWRITE_WEBP_QUALITY, quality]
    _, buffer = cv2.imencode(f".{image_format}", np.ascontiguousarray(pixels), how)
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.tobytes()).decode()}"


def safe_palette(count: int) -> list[list[int]]:
    """Return `count` colours: SAFE, then the same darker, paler, darker still."""
    colours = []
    for number in range(count):
        hue, light, saturation = colorsys.rgb_to_hls(
            *(value / 255 for value in SAFE[number % len(SAFE)])
        )
        light *= (1.0, 0.5, 1.45, 0.3)[min(3, number // len(SAFE))]
        colours.append(
            [round(255 * value) for value in colorsys.hls_to_rgb(hue, min(light, 0.92), saturation)]
        )
    return colours
