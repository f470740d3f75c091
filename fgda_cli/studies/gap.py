"""`fgda gap`: what differs between a source and a target before anything is trained, and what to
set for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.classes import ClassSet
from ..data.geometry import resize_image, same_aspect
from ..data.loader import training_split
from ..data.store import AnyDataset, typical_size
from ..models.checkpoint import load, load_model
from ..runtime.devices import Precision
from ..runtime.errors import FgdaError
from ..runtime.record import recorded
from ..settings import Data
from ..signals.observe import Frames, frames_of, observe

# width at which images are compared, pixels
WIDTH = 256
# bins of height, L, a, b in the crude guess of classes
BINS = (8, 6, 6, 6)
BANDS = 32  # of the spectrum
# share of the height by which a shifted layout counts as another view
SHIFTED = 0.06
# share of the source's pixels below which a class is rare
RARE = 0.005


@dataclass(frozen=True)
class Look:
    """What images look like on average."""

    # [2,3] mean and deviation of L, a, b (0-255)
    moments: np.ndarray
    # [BANDS] mean log10 power from coarse to fine
    spectrum: np.ndarray
    # [2,32] by height: brightness, edges; each less its mean, over its deviation
    profile: np.ndarray


def look_of(images: list[np.ndarray]) -> Look:
    lab = [
        cv2.cvtColor(image, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64) for image in images
    ]
    values = np.concatenate(lab)
    return Look(
        moments=np.stack([values.mean(0), values.std(0)]),
        spectrum=np.mean([spectrum_of(image) for image in images], axis=0),
        profile=np.mean([profile_of(image) for image in images], axis=0),
    )


def difference(one: Look, two: Look) -> dict[str, float]:
    """Return how the second look differs from the first, in figures."""
    mean_deviation = (one.moments[1] + two.moments[1]) / 2
    colour = np.abs(one.moments[0] - two.moments[0]) / mean_deviation
    # the finer half of the bands, each domain relative to its coarsest: contrast is no sharpness
    fine = slice(BANDS // 2, BANDS)
    detail_of_one = (one.spectrum - one.spectrum[0])[fine]
    detail_of_two = (two.spectrum - two.spectrum[0])[fine]
    detail = detail_of_one - detail_of_two
    shift, alike = best_shift(one.profile, two.profile)
    return {
        "brightness": float(two.moments[0][0] - one.moments[0][0]) / 2.55,
        "contrast": float(two.moments[1][0] / max(one.moments[1][0], 1e-6)),
        "colour_distance": float(np.sqrt(np.mean(colour**2))),
        "sharpness_db": float(10 * detail.mean()),
        "layout_correlation": alike,
        "horizon_shift": shift,
    }


@dataclass(frozen=True)
class DomainStatistics:
    """One side of the gap."""

    name: str
    size: tuple[int, int]
    count: int
    frames: Frames
    look: Look
    # [K] of the labelled pixels. None: no labels
    shares: np.ndarray | None
    # width and height of a prepared training image. None: it keeps its size
    stored: tuple[int, int] | None = None


def look_at(dataset: AnyDataset, count: int) -> DomainStatistics:
    """Return the statistics of a data set over `count` of its training images (of its first split
    if it has none).
    """
    split = training_split(dataset)
    items = dataset.items(split)
    labelled = all(item.label is not None for item in items)
    frames = frames_of(
        dataset,
        split,
        lambda width, height: (WIDTH, max(32, round(WIDTH * height / width))),
        count=count,
        labelled=labelled,
    )
    shares = None
    if labelled and all(item.counts is not None for item in items):
        totals = np.sum([item.counts for item in items], axis=0, dtype=np.float64)
        shares = totals / max(totals.sum(), 1)
    return DomainStatistics(
        dataset.name,
        typical_size(items),
        len(items),
        frames=frames,
        look=look_of(frames.images),
        shares=shares,
        stored=dataset.size,
    )


def spectrum_of(image: np.ndarray) -> np.ndarray:
    """Return the mean log10 power of the grey image by spatial frequency, from the coarsest to
    Nyquist's, in BANDS bands.
    """
    side = 192
    small = resize_image(image, (side, side))
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float64) / 255
    # fades out to the borders, whose jump from one side to the other would count as detail
    window = np.hanning(side)[:, None] * np.hanning(side)[None]
    spectrum = np.fft.fftshift(np.fft.fft2((grey - grey.mean()) * window))
    power = np.abs(spectrum) ** 2
    y, x = np.indices(power.shape) - side // 2
    # 1 at Nyquist's frequency; the corners beyond it are a last band, which is left out
    frequency = np.hypot(x, y) / (side / 2)
    band = np.minimum((frequency * BANDS).astype(int), BANDS)
    sums = np.bincount(band.ravel(), power.ravel())
    counts = np.bincount(band.ravel())
    return np.log10(sums[:BANDS] / counts[:BANDS] + 1e-9)


def profile_of(image: np.ndarray) -> np.ndarray:
    """Return brightness and edges by height `[2,32]`, standardised: they show where horizon, sky
    and ground are.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0))
    down = np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    profiles = []
    for values in (grey, across + down):
        by_row = values.mean(1, keepdims=True)
        profile = cv2.resize(by_row, (1, 32), interpolation=cv2.INTER_AREA)[:, 0]
        profiles.append((profile - profile.mean()) / (profile.std() + 1e-6))
    return np.stack(profiles)


def guessed_shares(
    source: DomainStatistics, target: DomainStatistics, classes: ClassSet
) -> tuple[np.ndarray, float]:
    """Guess the shares of the classes `[K]` on the target by colour and height alone, and return
    how far they are from the source's.

    Crude, for it knows no shape: a histogram of each class over height and Lab, from half of the
    source's images. What it says of the target (in the source's mean and deviation of Lab) is
    compared with what it says of the source's other half.
    """
    pairs = list(zip(source.frames.images, source.frames.labels, strict=True))
    table = _likeliest(pairs[::2], len(classes))
    held_out = [image for image, _ in pairs[1::2]] or source.frames.images
    posteriors = {}
    for side, images, moments in (
        ("source", held_out, source.look.moments),
        ("target", target.frames.images, target.look.moments),
    ):
        cells = [_cells(_in_tones(image, moments, source.look.moments)) for image in images]
        counts = np.bincount(
            np.concatenate([table[cell].ravel() for cell in cells]), minlength=len(classes)
        )
        posteriors[side] = counts / counts.sum()
    expected = source.shares * (posteriors["target"] + 1e-4) / (posteriors["source"] + 1e-4)
    return expected / expected.sum(), float(
        np.abs(posteriors["target"] - posteriors["source"]).sum() / 2
    )


def _likeliest(pairs: list[tuple[np.ndarray, np.ndarray]], num_classes: int) -> np.ndarray:
    """The class of each bin of height and Lab."""
    counts = np.zeros((num_classes, int(np.prod(BINS))))
    for image, label in pairs:
        cell = _cells(cv2.cvtColor(image, cv2.COLOR_RGB2LAB))
        known = label < num_classes
        np.add.at(counts, (label[known], cell[known]), 1)
    # p(cell | class): the prior is what is asked for
    likelihoods = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return likelihoods.argmax(0)


def _in_tones(image: np.ndarray, own: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Lab uint8 `[H,W,3]` with one mean and deviation `[2,3]` in place of another."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float64)
    standard = (lab - own[0]) / np.maximum(own[1], 1e-6)
    return np.clip(standard * wanted[1] + wanted[0], 0, 255).astype(np.uint8)


def _cells(lab: np.ndarray) -> np.ndarray:
    """The bin of each pixel `[H,W]` of a Lab image."""
    lab = lab.astype(int)
    cell = np.broadcast_to(
        (np.arange(lab.shape[0]) * BINS[0] // lab.shape[0])[:, None], lab.shape[:2]
    ).astype(int)
    for channel in range(3):
        cell = cell * BINS[channel + 1] + lab[..., channel] * BINS[channel + 1] // 256
    return cell


def best_shift(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Return how far down (share of the height) the second's profiles `[2,32]` lie, and their
    correlation there.
    """
    best = (0.0, -1.0)
    for shift in range(-12, 13):
        a = first[:, max(0, -shift) : 32 - max(0, shift)].ravel()
        b = second[:, max(0, shift) : 32 - max(0, -shift)].ravel()
        r = float(np.corrcoef(a, b)[0, 1])
        if r > best[1] + 1e-9:
            best = (shift / 32, r)
    return best


@dataclass(frozen=True)
class Advice:
    """Something to set, or to prepare again, and why."""

    # `KEY=VALUE` of a preset, or options of `fgda prepare`
    what: str
    why: str
    # whether a preset's section `data` follows it already
    is_followed: Callable[[Data], bool] = lambda data: False


@dataclass(frozen=True)
class Gap:
    """Both sides, the figures of what lies between, and what to set."""

    source: DomainStatistics
    target: DomainStatistics
    classes: ClassSet
    figures: dict[str, float]
    # the same figures between two halves of the target: as small as a difference can be
    within: dict[str, float]
    # [K] shares expected on the target
    guess: np.ndarray | None
    advice: list[Advice]
    # the shares come from colour and height; False: from a model's predictions
    is_guess: bool = True


def measure(
    source: AnyDataset, target: AnyDataset, count: int = 60, predicted: np.ndarray | None = None
) -> Gap:
    """Compare two data sets; `predicted` are class shares that a trained model predicts on the
    target, in place of the crude guess.

    Raises FgdaError for a source without labels.
    """
    one = look_at(source, count)
    two = look_at(target, count)
    if one.shares is None:
        raise FgdaError(f"{source.name} has no labels: a source needs them")
    if predicted is None:
        guess, apart = guessed_shares(one, two, source.classes)
    else:
        guess = predicted
        apart = float(np.abs(predicted - one.shares).sum() / 2)
    figures = difference(one.look, two.look) | {"class_distance": apart}
    images = two.frames.images
    within = difference(look_of(images[::2]), look_of(images[1::2]))
    return Gap(
        one,
        two,
        source.classes,
        figures=figures,
        within=within,
        guess=guess,
        advice=advice_for(one, two, source.classes, figures=figures),
        is_guess=predicted is None,
    )


def advice_for(
    source: DomainStatistics, target: DomainStatistics, classes: ClassSet, figures: dict[str, float]
) -> list[Advice]:
    """Return what to set and why; no method, no batch norm mode and no blur, for no such rule held
    on all pairs measured.
    """
    advice = [_target_size(target)]
    if not same_aspect(source.size, target.size):
        advice.append(_source_aspect(source, target))
    shift = figures["horizon_shift"]
    views = []
    if abs(shift) >= SHIFTED:
        side = "higher" if shift < 0 else "lower"
        views.append(f"the horizon lies {100 * abs(shift):.0f} % {side}")
    if figures["layout_correlation"] < 0.5:
        views.append("the layouts by height hardly agree")
    if views:
        why = f"{'; '.join(views)}: objects may have other sizes, look at both sides"
        advice.append(
            Advice("data.source.scale=[1.0,3.0]", why, lambda data: data.source.scale[1] >= 2)
        )
    rare = [
        name for name, share in zip(classes.names, source.shares, strict=True) if 0 < share < RARE
    ]
    if rare:
        why = f"rare in the source: {', '.join(rare)}"
        advice.append(Advice("data.class_balance=0.5", why, lambda data: data.class_balance > 0))
    return advice


def _target_size(target: DomainStatistics) -> Advice:
    pixels = target.stored[0] * target.stored[1] if target.stored else 1024 * 512
    whole = target.size[0] * target.size[1]
    scale = (min(pixels, whole) / whole) ** 0.5
    width, height = (max(32, round(side * scale / 8) * 8) for side in target.size)
    return Advice(
        f"data.target.size=[{width},{height}]",
        f"the target's own aspect ({_text(target.size)})",
        lambda data: same_aspect(data.target.size, target.size),
    )


def _source_aspect(source: DomainStatistics, target: DomainStatistics) -> Advice:
    """Advise to cut the source to the target's aspect: by a crop, or, where it was squeezed, by
    preparing it again.
    """
    stored = source.stored or source.size
    width, height = _largest_crop(stored, target.size)
    if not same_aspect(stored, source.size):
        return Advice(
            f"--cut --size {width}x{height}",
            f"prepare the source again: {_text(source.size)} was squeezed to {_text(stored)}, and"
            f" the target has another aspect ({_text(target.size)})",
        )
    return Advice(
        f"data.source.crop=[{width},{height}]",
        f"the source ({_text(source.size)}, prepared at {_text(stored)}) has another aspect: cut"
        " it, do not squeeze it",
        lambda data: data.source.crop is not None and same_aspect(data.source.crop, target.size),
    )


def beyond(gap: Gap, data: Data) -> Gap:
    """Return the gap with the advice alone that a preset's section `data` does not follow yet."""
    return replace(gap, advice=[one for one in gap.advice if not one.is_followed(data)])


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _largest_crop(size: tuple[int, int], like: tuple[int, int]) -> tuple[int, int]:
    """The largest part of `size` in the aspect of `like`, sides multiples of 8."""
    factor = min(size[0] / like[0], size[1] / like[1])
    return tuple(max(32, int(side * factor / 8) * 8) for side in like)


def gap_json(gap: Gap) -> dict[str, Any]:
    def side(domain: DomainStatistics) -> dict[str, Any]:
        return {
            "data": domain.name,
            "images": domain.count,
            "size": list(domain.size),
            "lab_mean": domain.look.moments[0].tolist(),
            "lab_deviation": domain.look.moments[1].tolist(),
            "spectrum": domain.look.spectrum.tolist(),
        }

    names = gap.classes.names
    return {
        "source": side(gap.source),
        "target": side(gap.target),
        "figures": gap.figures,
        "within_target": gap.within,
        "class_shares": dict(zip(names, gap.source.shares.tolist(), strict=True)),
        "expected_on_target": dict(zip(names, gap.guess.tolist(), strict=True)),
        "expected_by": (
            "a guess from colour and height" if gap.is_guess else "a model's predictions"
        ),
        "advice": [{"set": one.what, "why": one.why} for one in gap.advice],
    }


def predicted_shares(
    path: Path, source: AnyDataset, target: AnyDataset, count: int, precision: Precision
) -> np.ndarray:
    """Return the source's class shares `[K]` in a model's predictions on the target. Raises
    FgdaError for other classes.
    """
    model, info = load_model(path)
    if set(info["classes"].names) != set(source.classes.names):
        raise FgdaError(
            f"{path} has different classes from {source.name}: {', '.join(info['classes'].names)}"
        )
    split = training_split(target)
    shares = observe(
        precision.to_device(model),
        frames_of(target, split, model.input_rule, count=count),
        precision,
    ).shares
    return np.array([shares[info["classes"].names.index(name)] for name in source.classes.names])


def trained_on(source: AnyDataset) -> Path | None:
    """Return the newest source model below `runs/` that was trained on this data set and has its
    classes; None when there is none.
    """
    finals = Path("runs").glob("*/pretrain-*/checkpoints/final.pth")
    for final in sorted(finals, key=lambda path: path.stat().st_mtime, reverse=True):
        if (
            recorded(final.parent.parent, lambda preset: preset["data"]["source"]["dataset"])
            != source.name
        ):
            continue
        try:
            if load(final)["classes"]["names"] == list(source.classes.names):
                return final
        except (KeyError, TypeError, FgdaError):
            continue  # damaged
    return None
