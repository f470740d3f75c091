"""The splits of a data set: which of them a preparation keeps, and that no image is in two."""

from __future__ import annotations

import os
from typing import Any

from ..runtime.errors import FgdaError, UsageError
from .convert import Task
from .layouts.base import Listing, Pair

# a manifest's entries by split
Splits = dict[str, list[dict]]


def kept_splits(task: Task, listing: Listing, former: dict[str, Any] | None) -> Splits:
    """Return the splits of the former data set that this preparation does not make anew."""
    if former is None or not task.is_own:
        return {}
    made_anew = {pair.split for pair in listing.pairs}
    return {split: items for split, items in former["splits"].items() if split not in made_anew}


def refuse_kept_images(task: Task, listing: Listing, kept: Splits) -> None:
    """Raise UsageError for an image of the listing that a split which is kept holds."""
    raw = {
        os.path.realpath(entry["raw"]): split
        for split, items in kept.items()
        for entry in items
        if entry.get("raw")
    }
    both = [pair for pair in listing.pairs if os.path.realpath(pair.image) in raw]
    if both:
        other = raw[os.path.realpath(both[0].image)]
        raise UsageError(
            f"{len(both)} images stand in the split {other} of {task.out} already, e.g."
            f" {both[0].image}: no image may be in two splits\nleave them out, prepare {other} anew"
            " by the same command (--hold-out), or give another --name"
        )


def refuse_shared_paths(listing: Listing) -> None:
    """Raise UsageError for an image that two splits of one listing hold."""
    if listing.shares_images:
        return
    seen: dict[str, Pair] = {}
    for pair in listing.pairs:
        other = seen.setdefault(os.path.realpath(pair.image), pair)
        if other.split != pair.split:
            raise UsageError(
                f"{pair.image} is in the splits {other.split} and {pair.split}: no image may be"
                " in two"
            )


def without_shared_images(splits: Splits, listing: Listing) -> tuple[Splits, list[str]]:
    """Return the splits, and what to say: images that another split holds too, as copies, are left
    out of `train`.

    Raises FgdaError where nothing would be left to train on.
    """
    if listing.shares_images:
        return splits, []
    held = {
        entry["raw_hash"]: (split, entry["name"])
        for split, items in splits.items()
        if split != "train"
        for entry in items
        if entry.get("raw_hash")
    }
    train = splits.get("train", [])
    both = [entry for entry in train if entry.get("raw_hash") in held]
    if not both:
        return splits, []
    split, other = held[both[0]["raw_hash"]]
    names = {entry["name"] for entry in both}
    kept = [entry for entry in train if entry["name"] not in names]
    if not kept:
        raise FgdaError(
            f"every training image is an image of the split {split} too: no image may be in two"
            " splits"
        )
    return splits | {"train": kept}, [
        f"train: {len(both)} images are left out, for the split {split} has the same pixels "
        f"(e.g. {both[0]['name']}, there {other})"
    ]
