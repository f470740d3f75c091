"""What a network does on frames without labels, in figures: how sure it is, how steady under other
views, how varied, whether its borders lie on the image's, and how far the frames are from what its
batch norm was trained on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.alignment import border_rank
from ..data.geometry import Size, resize_ids, resize_image
from ..data.images import difference_hash, evenly_spaced, look_alike
from ..data.loader import to_tensor
from ..data.store import AnyDataset
from ..inference.tta import forward, forward_logits
from ..losses import entropy_map, upsample
from ..metrics import ConfusionMatrix
from ..models.normalisation import batch_norms
from ..models.segmenter import Segmenter, evaluating
from ..runtime.devices import Precision

# pixels of a frame whose features are compared
FEATURES = 24
# temperature of soft neighbourhood density ([SND])
DENSITY_TEMPERATURE = 0.05
VIEWS = ("mirror", "scale", "light")
# What each signal says; all are means over the frames, from 0 to 1 but for bn_distance and
# feature_distance.
MEANINGS = {
    "entropy": "how unsure it is of each pixel; methods minimise it, so a lower one proves nothing",
    "diversity": "how evenly its predictions spread over the classes",
    "information": "diversity of the mean prediction less entropy: sure, and yet varied",
    "density": "how closely the features of a frame gather in groups",
    "edges": "how often its class borders lie on strong edges of the image",
    "steady_mirror": "agreement with its prediction on the mirrored frame (mean IoU)",
    "steady_scale": "agreement with its prediction on the frame enlarged by a quarter",
    "steady_light": "agreement with its prediction in other light, slightly blurred",
    "bn_distance": (
        "distance of the frames from batch norm's running statistics, in standard deviations"
    ),
    "feature_distance": (
        "distance of the target's features from the source's, in standard deviations"
    ),
}


@dataclass(frozen=True)
class Frames:
    """RGB images `[H,W,3]` at the network's input size, with train ids `[H,W]` and names where they
    have some.
    """

    images: list[np.ndarray]
    labels: list[np.ndarray] | None = None
    names: list[str] | None = None

    def name(self, number: int) -> str:
        return f"frame {number + 1}" if self.names is None else self.names[number]


@dataclass
class Observed:
    """Behaviour of a network on frames: `signals` by name; by class `[K]` the `shares` of pixels
    and, in [0,1], how `steady` it is under other views.
    """

    signals: dict[str, float]
    shares: np.ndarray
    steady: np.ndarray
    ids: list[np.ndarray] = field(default_factory=list)
    features: np.ndarray | None = None
    # frames that are not the same as another. None: not known (a run of an earlier version)
    different: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "signals": self.signals,
            "shares": self.shares.tolist(),
            "steady": self.steady.tolist(),
            "different": self.different,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Observed:
        arrays = (np.array(value[name], float) for name in ("shares", "steady"))
        return cls(dict(value["signals"]), *arrays, different=value.get("different"))


def frames_of(
    dataset: AnyDataset, split: str, size: Any, count: int, labelled: bool = False
) -> Frames:
    """Return `count` images, evenly spread over the split, at `size`: (width, height), or a
    function of an image's own size.
    """
    items = dataset.items(split, labelled=labelled)
    images = []
    labels = []
    spread = evenly_spaced(items, count)
    for item in spread:
        image = np.ascontiguousarray(dataset.image(item))
        wanted = size(image.shape[1], image.shape[0]) if callable(size) else size
        images.append(resize_image(image, wanted, dataset.resample))
        if labelled:
            labels.append(resize_ids(dataset.label(item), wanted))
    return Frames(images, labels if labelled else None, [item.name for item in spread])


def observe(model: Segmenter, frames: Frames, precision: Precision) -> Observed:
    """Return the signals of a model on frames, each seen plain, mirrored, enlarged by a quarter,
    and in other light.
    """
    looked = _Looked(model.num_classes)
    with evaluating(model), _batch_statistics(model) as statistics:
        for number, image in enumerate(frames.images):
            with statistics.counted():
                output = forward(model, to_tensor(image)[None], precision)
            logits = output.logits.float()
            looked.add_plain(logits, output.features.float(), number)
            looked.add_border(image, upsample(logits, image.shape[:2], model.align_corners))
            for name, view in views(image):
                other = forward_logits(model, view[None], precision)
                looked.add_view(
                    name,
                    F.interpolate(other, logits.shape[-2:], mode="bilinear", align_corners=False),
                )
    observed = looked.observed({"bn_distance": statistics.distance()})
    observed.different = different_views(frames.images)
    return observed


def views(image: np.ndarray) -> Iterator[tuple[str, Tensor]]:
    """Yield views of an image, uint8 `[3,H,W]`: mirrored; a quarter larger; in other light and
    blurred.
    """
    yield "mirror", to_tensor(np.ascontiguousarray(image[:, ::-1]))
    larger: Size = tuple(max(8, round(1.25 * side / 8) * 8) for side in image.shape[1::-1])
    yield "scale", to_tensor(resize_image(image, larger))
    # more contrast, a warmer tint, a little darker
    light = 128 + 1.15 * (image.astype(np.float32) - 128) * [1.04, 1.0, 0.96] - 8
    light = np.clip(light, 0, 255).astype(np.uint8)
    yield "light", to_tensor(cv2.GaussianBlur(light, (3, 3), 0.8))


def different_views(images: list[np.ndarray]) -> int:
    """Count the images that do not look like one counted before: a frame and its copy with noise
    tell no more than one.
    """
    seen = np.zeros((0, 64), bool)
    for image in images:
        bits = difference_hash(image)
        if not look_alike(seen, bits).any():
            seen = np.concatenate([seen, bits[None]])
    return len(seen)


class _Looked:
    """Sums over the frames."""

    def __init__(self, num_classes: int):
        self.k = num_classes
        # [1,K,h,w] of each frame
        self.logits: list[Tensor] = []
        self.shares = np.zeros(num_classes)
        self.matrices = {name: ConfusionMatrix(num_classes) for name in VIEWS}
        self.features: list[Tensor] = []
        # [2,C]: means of features and of their squares
        self.moments: list[Tensor] = []
        self.edges: list[float] = []
        self.ids: list[np.ndarray] = []

    def add_plain(self, logits: Tensor, features: Tensor, number: int) -> None:
        ids = _ids(logits)
        self.logits.append(logits.cpu())
        self.ids.append(ids)
        self.shares += np.bincount(ids.ravel(), minlength=self.k) / ids.size
        self.moments.append(moments(features))
        # [h*w,C]
        by_pixel = features[0].flatten(1).T
        # by the frame's number, so that every network is looked at in the same places
        generator = torch.Generator().manual_seed(number)
        drawn = torch.randperm(len(by_pixel), generator=generator)[:FEATURES]
        chosen = by_pixel[drawn.to(by_pixel.device)]
        self.features.append(F.normalize(chosen, dim=1).cpu())

    def add_border(self, image: np.ndarray, logits: Tensor) -> None:
        self.edges.append(border_rank(image, _ids(logits)))

    def add_view(self, name: str, logits: Tensor) -> None:
        if name == "mirror":
            # back to the frame's own orientation
            logits = logits.flip(-1)
        self.matrices[name].update(self.ids[-1], _ids(logits))

    def observed(self, more: dict[str, float]) -> Observed:
        shares = self.shares / self.shares.sum()
        entropy, mean = sureness(self.logits)
        by_view = {
            name: np.nan_to_num(matrix.iou()) / 100 for name, matrix in self.matrices.items()
        }
        signals = {
            "entropy": entropy,
            "diversity": normalised_entropy(shares),
            "information": normalised_entropy(mean) - entropy,
            "density": density(torch.cat(self.features)),
            "edges": float(np.nanmean(self.edges)) if not np.isnan(self.edges).all() else 0.5,
            **{f"steady_{name}": float(iou.mean()) for name, iou in by_view.items()},
            **more,
        }
        return Observed(
            signals,
            shares,
            np.mean(list(by_view.values()), axis=0),
            ids=self.ids,
            features=spread_of(self.moments),
        )


# deviation over the classes to which all networks' logits are brought; most have about as much
CALIBRATED = 3.0


def sureness(logits_by_frame: list[Tensor]) -> tuple[float, np.ndarray]:
    """Return the mean entropy (0 to 1) and the mean class probabilities `[K]` over all frames'
    logits `[1,K,h,w]`.

    Logits are first brought to one deviation over the classes, the same for every network. A
    network whose logits are multiplied by a constant makes the same decisions, and methods that
    train at another temperature do just that: what is compared must not move by it.
    """
    deviation = (
        torch.cat([logits.double().var(1, unbiased=False).flatten() for logits in logits_by_frame])
        .mean()
        .sqrt()
    )
    factor = CALIBRATED / float(deviation.clamp(min=1e-12))
    entropies = []
    probs = torch.zeros(logits_by_frame[0].shape[1], dtype=torch.float64)
    for logits in logits_by_frame:
        calibrated = logits.double() * factor
        entropies.append(float(entropy_map(calibrated).mean()))
        probs += torch.softmax(calibrated, 1).mean((0, 2, 3))
    return float(np.mean(entropies)), (probs / probs.sum()).numpy()


def moments(features: Tensor) -> Tensor:
    """Return the means of features `[1,C,h,w]` and of their squares, `[2,C]`."""
    x = features.float()
    return torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]).float().cpu()


def spread_of(moments_by_frame: list[Tensor]) -> np.ndarray:
    """Return mean and variance `[2,C]` over all frames."""
    mean, square = torch.stack(moments_by_frame).mean(0).double()
    return torch.stack([mean, (square - mean.square()).clamp(min=0)]).numpy()


def feature_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the distance of two domains' features `[2,C]`: root mean square difference of means,
    in standard deviations.
    """
    spread = np.maximum((first[1] + second[1]) / 2, 1e-12)
    return float(np.sqrt(np.mean((first[0] - second[0]) ** 2 / spread)))


def _ids(logits: Tensor) -> np.ndarray:
    return logits.max(1).indices[0].to(torch.uint8).cpu().numpy()


def normalised_entropy(shares: np.ndarray) -> float:
    """Return the entropy of shares `[K]` over log K: 1 where all are alike, 0 where there is
    one.
    """
    entropy = -(shares * np.log(np.clip(shares, 1e-12, None))).sum()
    return float(entropy / np.log(max(len(shares), 2)))


def density(features: Tensor) -> float:
    """Return soft neighbourhood density ([SND]) of normed features `[n,c]`: mean entropy of their
    similarities.
    """
    similarity = features @ features.T / DENSITY_TEMPERATURE
    similarity.fill_diagonal_(float("-inf"))
    probs = torch.softmax(similarity, 1)
    return float(-(probs * probs.clamp(min=1e-12).log()).sum(1).mean())


class _Statistics:
    """Means and squares of what entered each batch norm, call by call (two resolutions call a layer
    for each window).
    """

    def __init__(self, layers: list[nn.BatchNorm2d]):
        self.layers = layers
        self.counting = False
        self.sums: list[Tensor | None] = [None] * len(layers)
        self.calls = [0] * len(layers)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count one frame inside. Layers are in training mode until they are called; otherwise they
        would be folded into the convolution before them and never be called. They normalise by
        their running statistics all the same.
        """
        self.counting = True
        for layer in self.layers:
            layer.train()
        yield
        self.counting = False
        for layer in self.layers:
            layer.eval()

    def before(self, number: int):
        def add(layer, inputs):
            if self.counting:
                batch_moments = moments(inputs[0])
                self.sums[number] = (
                    batch_moments
                    if self.sums[number] is None
                    else self.sums[number] + batch_moments
                )
                self.calls[number] += 1
                layer.eval()

        return add

    def after(self, layer, *_):
        if self.counting:
            layer.train()

    def distance(self) -> float:
        """Return the mean over layers and channels of KL(frames || running statistics) of
        Gaussians, 20 at most; 0 without batch norm.
        """
        divergences = []
        for layer, sums, calls in zip(self.layers, self.sums, self.calls, strict=True):
            if sums is not None:
                mean, square = sums / calls
                centre = layer.running_mean.cpu()
                running = layer.running_var.clamp(min=1e-8).cpu()
                var = (square - mean.square()).clamp(min=1e-8)
                kl = 0.5 * ((var + (mean - centre).square()) / running - 1 - (var / running).log())
                divergences.append(float(kl.clamp(max=20).mean()))
        return float(np.mean(divergences)) if divergences else 0.0


@contextmanager
def _batch_statistics(model: nn.Module) -> Iterator[_Statistics]:
    statistics = _Statistics(
        [layer for layer in batch_norms(model) if layer.running_mean is not None]
    )
    handles = [
        layer.register_forward_pre_hook(statistics.before(n))
        for n, layer in enumerate(statistics.layers)
    ]
    handles += [layer.register_forward_hook(statistics.after) for layer in statistics.layers]
    try:
        yield statistics
    finally:
        for handle in handles:
            handle.remove()


def look_at_source(
    model: Segmenter, frames: Frames, precision: Precision
) -> tuple[float | None, np.ndarray]:
    """Return mIoU in percent on labelled source frames, and the model's features there `[2,C]`."""
    matrix = ConfusionMatrix(model.num_classes)
    moments_by_frame = []
    with evaluating(model):
        for image, label in zip(frames.images, frames.labels, strict=True):
            output = forward(model, to_tensor(image)[None], precision)
            moments_by_frame.append(moments(output.features))
            matrix.update(
                label, _ids(upsample(output.logits.float(), label.shape, model.align_corners))
            )
    return matrix.miou(), spread_of(moments_by_frame)
