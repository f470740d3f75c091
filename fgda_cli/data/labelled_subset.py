"""The target images whose labels may be used."""

from __future__ import annotations

import json
from collections.abc import Container
from pathlib import Path

import numpy as np

from ..runtime.errors import FgdaError
from ..runtime.random import SampleStream
from .images import IMAGE_SUFFIXES
from .store import AnyDataset, Item


def chosen_labels(target: AnyDataset, wanted: int | str, seed: int) -> list[Item]:
    """Return labelled training images: `wanted` many, drawn by the seed (a larger number contains
    the smaller ones), "all", or those that a file lists.

    Raises FgdaError when the target has no such labels.
    """
    labelled = [
        item for item in target.items("train") if item.label is not None and item.counts is not None
    ]
    if not labelled:
        raise FgdaError(
            f"{target.name} has no labels of its training images: prepare it with --labels, or name"
            " a labelled data set in data.target.labelled"
        )
    if wanted == "all":
        return labelled
    if isinstance(wanted, int):
        if wanted > len(labelled):
            raise FgdaError(
                f"data.target.labelled: {wanted} images are asked for, {target.name} has"
                f" {len(labelled)} with labels"
            )
        order = np.random.default_rng([seed, SampleStream.LABELLED_SUBSET]).permutation(
            len(labelled)
        )
        return [labelled[index] for index in sorted(order[:wanted])]
    by_name = {item.name: item for item in labelled}
    # one image may be listed with its suffix and without
    names = list(dict.fromkeys(as_known(name, by_name) for name in listed_names(Path(wanted))))
    missing = [name for name in names if name not in by_name]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise FgdaError(
            f"{wanted}: {target.name} has no labelled training image '{missing[0]}'{more}"
        )
    return [by_name[name] for name in names]


def as_known(name: str, known: Container[str]) -> str:
    """Return the name under which an image is known: a list of files has their suffixes too."""
    stem, dot, suffix = name.rpartition(".")
    is_file = f"{dot}{suffix}".lower() in IMAGE_SUFFIXES
    return stem if name not in known and is_file and stem in known else name


def listed_names(path: Path) -> list[str]:
    """Read names of images, each once, from a text file's lines or from a ranking.json. Raises
    FgdaError.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = (
            [entry["name"] for entry in json.loads(text)["frames"]]
            if path.suffix == ".json"
            else text.splitlines()
        )
        names = list(dict.fromkeys(name.strip() for name in lines if name.strip()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FgdaError(
            f"cannot read {path}: a name a line, or a ranking.json of fgda rank, is expected"
        ) from error
    if not names:
        raise FgdaError(f"{path} lists no image")
    return names
