"""The choice of frames to label next: the network is unsure there, rare classes occur, and the
frames differ from each other.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.classes import ClassSet
from ..data.images import BadFile, difference_hash, look_alike, visible_files, write_image
from ..data.labelled_subset import as_known, listed_names
from ..data.prelabels import Prelabels, check_names
from ..data.video import frame_count
from ..inference.evaluate import headings
from ..inference.inputs import InputImage, read_chunks, readable
from ..inference.pipeline import batched, images_per_batch
from ..inference.predict import Reading, network_size, predict_many
from ..inference.tta import batch_of, forward
from ..losses import entropy_map
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision
from ..runtime.files import whole_file, write_json, write_text
from ..runtime.reporter import Reporter
from ..runtime.written import Written
from ..visual.pictures import contact_sheet, overlay
from .compare import Scene
from .look import look_page

# most frames in the page
LOOKED_AT = 50
# smallest share of a frame's pixels that counts as a class: less may be noise
PRESENT = 0.002
# the largest number of float16
HALF = 65504.0
# frames whose distances are computed at once
ROWS = 4096


@dataclass(frozen=True)
class Looked:
    """Figures of one frame."""

    item: InputImage
    entropy: float  # mean of eq. 4
    shares: np.ndarray  # [K] of its pixels
    # float16 [C], the mean of the last stage
    features: np.ndarray
    # bool [64], alike for images that look alike
    bits: np.ndarray


@dataclass(frozen=True)
class Chosen:
    """A frame to label, and why: each part in [0, 1], relative to the frame that has most of it."""

    frame: Looked
    score: float
    uncertainty: float
    rarity: float
    # distance to the nearest frame chosen before
    novelty: float


@dataclass(frozen=True)
class Ranking:
    """What `fgda rank` is asked for: where to, how many frames, which kinds of pre-labels, and the
    file that lists frames which are labelled already, with their names.
    """

    out: Path
    top: int
    kinds: tuple[str, ...]
    labelled: Path | None
    names: frozenset[str]


def plan_ranking(
    out: Path, top: int, kinds: tuple[str, ...] = (), labelled: Path | None = None
) -> Ranking:
    """Return what is asked for. Raises UsageError and FgdaError for a folder that holds files of a
    person, and for a list that cannot be read.
    """
    names = frozenset() if labelled is None else frozenset(listed_names(labelled))
    check_place(out, kinds)
    return Ranking(out, top, kinds, labelled=labelled, names=names)


def run_rank(
    model: Segmenter,
    checkpoint: Path,
    classes: ClassSet,
    inputs: list[InputImage],
    ranking: Ranking,
    precision: Precision,
    reading: Reading = Reading(),
    reporter: Reporter = Reporter(quiet=True),
) -> tuple[dict[str, Any], int]:
    """Look at all frames, choose, and write the ranking; return it as JSON, and how many inputs
    could not be read. Raises UsageError for class names that a kind of pre-labels cannot hold.
    """
    for kind in ranking.kinds:
        check_names(kind, classes)
    frames, bad = look(model, inputs, precision, reporter=reporter, reading=reading)
    shown = {frame.item.name for frame in frames}
    names = {as_known(name, shown) for name in ranking.names}
    known = [frame for frame in frames if frame.item.name in names]
    if len(known) < len(names):
        reporter.warn(
            f"{ranking.labelled}: {len(names) - len(known)} of {len(names)} names are none of the"
            " images"
        )
    fresh = [frame for frame in frames if frame.item.name not in names]
    chosen, passed = choose(fresh, ranking.top, known)
    if len(chosen) < ranking.top:
        reporter.decide(
            f"{len(chosen)} frames, not {ranking.top}: of {len(fresh)}, {passed} look like another"
            " one"
        )
    result = ranking_json(checkpoint, chosen, len(frames), passed=passed, classes=classes)
    write_ranking(
        ranking,
        model,
        classes,
        chosen=chosen,
        result=result,
        precision=precision,
        reading=reading,
    )
    return result, bad


def look(
    model: Segmenter,
    inputs: list[InputImage],
    precision: Precision,
    reporter: Reporter,
    reading: Reading = Reading(),
) -> tuple[list[Looked], int]:
    """Return every frame that can be read, of videos those that `reading.clip` takes, and how many
    cannot; memory holds a few numbers a frame.
    """
    frames: list[Looked] = []
    bad = 0
    total = sum(
        (frame_count(item.source, reading.clip) or 1) if item.is_video else 1 for item in inputs
    )
    with reporter.progress("rank", total) as advance:
        for chunk in read_chunks(
            inputs, reading.threads, max_pixels=reading.max_pixels, clip=reading.clip
        ):
            good, unread = readable(chunk, reporter)
            bad += unread
            frames += _look_at(model, good, precision)
            advance(len(chunk))
    return frames, bad


def _look_at(
    model: Segmenter, chunk: list[tuple[InputImage, np.ndarray]], precision: Precision
) -> list[Looked]:
    groups: dict[tuple[int, int], list[tuple[InputImage, np.ndarray]]] = {}
    for item, image in chunk:
        groups.setdefault(network_size(model, image), []).append((item, image))
    rows = []
    for size, pairs in groups.items():
        for batch in batched(pairs, images_per_batch(size, precision.device)):
            output = forward(model, batch_of(model, [image for _, image in batch], size), precision)
            logits = output.logits.float()
            rows += [
                Looked(
                    item,
                    float(entropy_map(logits[n : n + 1]).mean()),
                    _shares(logits[n]),
                    features=_short(output.features[n]),
                    bits=difference_hash(image),
                )
                for n, (item, image) in enumerate(batch)
            ]
    return rows


def _short(features: Tensor) -> np.ndarray:
    """The mean of features `[C,h,w]`, in half a number's memory: rank holds those of all frames."""
    mean = features.float().mean(dim=(1, 2)).clamp(-HALF, HALF)
    return mean.cpu().numpy().astype(np.float16)


def _shares(logits: Tensor) -> np.ndarray:
    winners = logits.max(0).indices.flatten()
    return (torch.bincount(winners, minlength=len(logits)).double() / len(winners)).cpu().numpy()


def choose(frames: list[Looked], top: int, known: list[Looked] = ()) -> tuple[list[Chosen], int]:
    """Return the `top` frames in order, and how many near-duplicates were skipped.

    Score = uncertainty x rarity x novelty, taken greedily (a weighted core-set): rarity sums log(1
    + share / mean) over the classes that a frame shows, the mean of a class's share is over all
    frames; novelty is the distance of features to the nearest frame that is chosen or `known`,
    times the distance in order to the nearest chosen one, in halves of N / top up to 1, for a
    drive's frames come in order.
    """
    if not frames:
        return [], 0
    uncertainty = np.array([frame.entropy for frame in frames])
    shares = np.array([frame.shares for frame in frames])
    shares = np.where(shares >= PRESENT, shares, 0)
    rarity = 1 + np.log1p(shares / np.maximum(shares.mean(0), 1e-9)).sum(1)
    features = np.array([frame.features for frame in frames])
    spread = features.std(0, dtype=np.float64) + 1e-6
    centre = features.mean(0, dtype=np.float64)
    bits = np.array([frame.bits for frame in frames])
    uncertainty = uncertainty / max(uncertainty.max(), 1e-9)
    rarity = rarity / rarity.max()
    nearest = np.full(len(frames), np.inf)
    open_ = np.ones(len(frames), bool)
    for frame in known:
        nearest = np.minimum(nearest, _distances(features, frame.features, spread))
        open_ &= ~look_alike(bits, frame.bits)
    widest = _distances(features, centre, spread).max() * 2 or 1.0
    order = np.arange(len(frames))
    apart = np.ones(len(frames))
    stretch = max(1.0, len(frames) / (2 * top))
    chosen: list[Chosen] = []
    passed = int((~open_).sum())
    while len(chosen) < top and open_.any():
        novelty = np.minimum(nearest / widest, 1.0) * apart
        score = np.where(open_, uncertainty * rarity * novelty, -1.0)
        best = int(score.argmax())
        chosen.append(
            Chosen(
                frames[best],
                float(score[best]),
                float(uncertainty[best]),
                rarity=float(rarity[best]),
                novelty=float(novelty[best]),
            )
        )
        nearest = np.minimum(nearest, _distances(features, features[best], spread))
        apart = np.minimum(apart, np.abs(order - best) / stretch)
        alike = open_ & look_alike(bits, bits[best])
        passed += int(alike.sum()) - 1
        open_ &= ~alike
    return chosen, passed


def _distances(features: np.ndarray, other: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """The Euclidean distances `[N]` of features `[N,C]` from one frame's, in units of `spread`."""
    blocks = (features[first : first + ROWS] for first in range(0, len(features), ROWS))
    return np.concatenate(
        [np.linalg.norm((block - other.astype(np.float64)) / spread, axis=1) for block in blocks]
    )


def ranking_json(
    checkpoint: Path, chosen: list[Chosen], looked: int, passed: int, classes: ClassSet
) -> dict[str, Any]:
    frames = [
        {
            "rank": number,
            "name": one.frame.item.name,
            "path": str(one.frame.item.path),
            "score": round(one.score, 5),
            "uncertainty": round(one.uncertainty, 4),
            "rarity": round(one.rarity, 4),
            "novelty": round(one.novelty, 4),
            "entropy": round(one.frame.entropy, 5),
            "classes": [
                name
                for name, share in zip(classes.names, one.frame.shares, strict=True)
                if share >= PRESENT
            ],
        }
        for number, one in enumerate(chosen, 1)
    ]
    return {
        "checkpoint": str(checkpoint),
        "looked_at": looked,
        "near_duplicates": passed,
        "frames": frames,
    }


def write_ranking(
    ranking: Ranking,
    model: Segmenter,
    classes: ClassSet,
    chosen: list[Chosen],
    result: dict[str, Any],
    precision: Precision,
    reading: Reading = Reading(),
) -> None:
    """Write `ranking.json`, `contact.png`, `look.html`, and a folder with images for each kind of
    pre-labels.

    What an earlier ranking wrote there is deleted, unless a person changed it since: see
    `check_place`.
    """
    out = ranking.out
    written = check_place(out, ranking.kinds)
    written.finish(())
    cells: dict[int, tuple] = {}
    scenes: dict[int, Scene] = {}
    writers = [Prelabels(kind, out / kind, classes) for kind in ranking.kinds]
    again = _predicted_again(model, chosen, precision=precision, reading=reading)
    for number, item, image, prediction in again:
        one = chosen[number]
        cells[number] = (
            overlay(image, prediction["train_ids"], classes, alpha=0.35),
            f"{number + 1}  {item.name}",
            f"unsure {one.uncertainty:.2f} rare {one.rarity:.2f} new {one.novelty:.2f}",
        )
        if number < LOOKED_AT:
            scenes[number] = Scene(image, name=item.name, predictions=[prediction])
        for writer in writers:
            writer.add(item.name, _copy_image(item, image, writer), prediction["train_ids"])
            # at once: what a stopped ranking wrote is known as ours
            for path in writer.files[-2:]:
                written.done(path.relative_to(out).as_posix())
    for writer in writers:
        writer.close()
    write_image(out / "contact.png", contact_sheet(_in_order(cells), classes))
    page = look_page(
        _in_order(scenes), headings([Path(result["checkpoint"])]), [classes], classes=classes
    )
    write_text(out / "look.html", page)
    write_json(out / "ranking.json", result)
    files = [
        *(out / name for name in SINGLE),
        *(path for writer in writers for path in writer.files),
    ]
    written.finish(path.relative_to(out).as_posix() for path in files)


def _predicted_again(
    model: Segmenter, chosen: list[Chosen], precision: Precision, reading: Reading
) -> Iterator[tuple[int, InputImage, np.ndarray, dict[str, np.ndarray]]]:
    """Yield the chosen frames with their places in the ranking, in the order of their files: read
    again, because all frames that were looked at do not fit into memory.
    """
    order = {one.frame.item.name: number for number, one in enumerate(chosen)}
    # a video once, whichever of its frames are chosen
    sources = {
        one.frame.item.path: InputImage(_stem(one.frame.item), one.frame.item.path)
        for one in chosen
    }
    for chunk in read_chunks([*sources.values()], max_pixels=reading.max_pixels, clip=reading.clip):
        wanted = [
            (item, image)
            for item, image in chunk
            if item.name in order and not isinstance(image, BadFile)
        ]
        results = predict_many(model, [image for _, image in wanted], precision)
        for (item, image), prediction in zip(wanted, results, strict=True):
            yield order[item.name], item, image, prediction


def _in_order(found: dict[int, Any]) -> list:
    return [found[number] for number in sorted(found)]


SINGLE = ("ranking.json", "contact.png", "look.html")


def check_place(out: Path, kinds: tuple[str, ...]) -> Written:
    """Return the record of what was written into a ranking's folder.

    Raises UsageError where a person changed one of its files, or put others where pre-labels are to
    go.
    """
    written = Written(out)
    below = [
        path.relative_to(out).as_posix()
        for kind in kinds
        for path in visible_files(out / kind)
        if (out / kind).is_dir()
    ]
    written.check([*written.all(), *SINGLE, *below])
    return written


def _stem(item: InputImage) -> str:
    """The name by which its file is read again: a frame's is that of its video."""
    return item.name.rpartition("/")[0] if item.is_video else item.name


def _copy_image(item: InputImage, image: np.ndarray, writer: Prelabels) -> str:
    """The image beside its pre-label; returns its name there. A video's frame becomes a PNG."""
    suffix = ".png" if item.is_video else item.path.suffix
    below = "JPEGImages" if writer.kind == "cvat" else "images"
    path = writer.folder / below / f"{item.name}{suffix}"
    if item.is_video:
        write_image(path, image)
    else:
        with whole_file(path) as partial:
            shutil.copyfile(item.path, partial)
    writer.files.append(path)
    return f"{item.name}{suffix}"
