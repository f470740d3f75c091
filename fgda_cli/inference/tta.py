"""Decisions for images: logits of one or several views, averaged in probability, decided a few rows
at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..chunked import Upsampled
from ..data.geometry import resize_image
from ..data.loader import to_tensor
from ..losses import entropy_map
from ..models.segmenter import Output, Segmenter
from ..runtime.devices import Precision
from ..runtime.errors import FgdaError
from ..runtime.transfer import send
from .sliding import SlidingWindow, sliding_logits


@dataclass(frozen=True)
class TestTimeAugmentation:
    """Mean of the class probabilities over scales and mirrors; `window` slides over each instead of
    one whole forward.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    window: SlidingWindow | None = None

    def to_json(self) -> dict[str, Any]:
        window = (
            None
            if self.window is None
            else [*self.window.size, self.window.overlap, self.window.blend]
        )
        return {"flip": self.flip, "scales": list(self.scales), "sliding": window}

    def describe(self) -> str:
        """Return the views in words, for pages and tables."""
        words = ["one view"] if len(self.scales) == 1 else [f"{len(self.scales)} scales"]
        words = (
            [f"scale {self.scales[0]:g}"]
            if len(self.scales) == 1 and self.scales[0] != 1
            else words
        )
        words += ["mirrored too"] if self.flip else []
        words += ["windows of {}x{}".format(*self.window.size)] if self.window is not None else []
        return ", ".join(words)


class NotFinite(FgdaError):
    """A network's output is NaN or infinite; `images` are those that it read."""

    def __init__(self, images: Iterable[str] = ()):
        of = f" on {', '.join(images)}" if images else ""
        super().__init__(
            f"the network's output is not finite{of}: its weights or norm statistics are damaged,"
            " or overflow in this precision\ntry --precision fp32, or another checkpoint"
        )


@contextmanager
def naming(images: list[str]) -> Iterator[None]:
    """Name the images of a batch in the error when the network's output for them is not finite."""
    try:
        yield
    except NotFinite:
        raise NotFinite(images) from None


def forward(model: Segmenter, images: Tensor, precision: Precision) -> Output:
    """Run the model on images uint8 or float `[B,3,H,W]`, without gradients, in the precision's
    type.

    Raises NotFinite for logits that are NaN or infinite, whose decisions mean nothing.
    """
    with torch.inference_mode(), precision.autocast():
        output = model(send(images, precision.device))
    if not torch.isfinite(output.logits).all():
        raise NotFinite()
    return output


def forward_logits(model: Segmenter, images: Tensor, precision: Precision) -> Tensor:
    """Return float32 logits `[B,K,h,w]` of images uint8 or float `[B,3,H,W]`."""
    return forward(model, images, precision).logits.float()


def batch_of(model: Segmenter, images: list[np.ndarray], size: tuple[int, int]) -> Tensor:
    """Return RGB images, resized by the model's rule to (width, height), as uint8 `[B,3,H,W]`."""
    resize = model.input_rule.resize if model.input_rule is not None else resize_image
    return torch.stack([to_tensor(resize(image, size)) for image in images])


def view_logits(
    model: Segmenter,
    images: list[np.ndarray],
    size: tuple[int, int],
    precision: Precision,
    tta: TestTimeAugmentation,
    others: tuple[Segmenter, ...] = (),
) -> list[Tensor]:
    """Return logits `[B,K,h,w]` of RGB images for each view, mirrored ones turned back, by the
    model and the `others`, which share its input; size (width, height) is scale 1.
    """

    def logits_of(each: Segmenter, images: Tensor) -> Tensor:
        if tta.window is None:
            return forward_logits(each, images, precision)
        return sliding_logits(
            lambda part: forward_logits(each, part, precision),
            images,
            tta.window,
            align_corners=each.align_corners,
        )

    views = []
    for scale in tta.scales:
        scaled = size if scale == 1 else tuple(max(32, round(side * scale)) for side in size)
        batch = batch_of(model, images, scaled)
        for each in (model, *others):
            views.append(logits_of(each, batch))
            if tta.flip:
                views.append(logits_of(each, batch.flip(-1)).flip(-1))
    return views


class Decision(NamedTuple):
    """One image's result, `[H,W]`: train ids uint8; where asked for, entropy and the largest
    probability, float32 in [0,1].
    """

    train_ids: np.ndarray
    entropy: np.ndarray | None = None
    confidence: np.ndarray | None = None


def decide_each(
    views: list[Tensor], out_sizes: list[tuple[int, int]], **how: bool
) -> Iterator[Decision]:
    """Return `decide` for each image of a batch."""
    for index, size in enumerate(out_sizes):
        yield decide([logits[index : index + 1] for logits in views], size, **how)


def decide(
    views: list[Tensor],
    out_size: tuple[int, int],
    with_entropy: bool = False,
    with_confidence: bool = False,
    align_corners: bool = True,
) -> Decision:
    """Return the decision at out_size (width, height), a few rows at a time; several views are
    averaged in probability.
    """
    size = (out_size[1], out_size[0])
    maps = [Upsampled(logits, size, align_corners) for logits in views]
    train_ids = np.empty(size, np.uint8)
    entropy = np.empty(size, np.float32) if with_entropy else None
    confidence = np.empty(size, np.float32) if with_confidence else None
    with torch.inference_mode():
        for rows in maps[0].chunks():
            scores = maps[0].rows(rows)
            if len(maps) > 1:
                probs = sum(
                    (torch.softmax(view.rows(rows), 1) for view in maps[1:]),
                    torch.softmax(scores, 1),
                )
                scores = torch.log((probs / len(maps)).clamp(min=torch.finfo(probs.dtype).tiny))
            # max, not argmax: the same index, found four times as fast on a processor
            most, winner = scores.max(1)
            train_ids[rows] = winner[0].to(torch.uint8).cpu().numpy()
            if entropy is not None:
                entropy[rows] = entropy_map(scores)[0].clamp(0, 1).cpu().numpy()
            if confidence is not None:
                confidence[rows] = (
                    torch.exp(most - torch.logsumexp(scores, 1))[0].clamp(0, 1).cpu().numpy()
                )
    return Decision(train_ids, entropy, confidence)
