"""Two resolutions: the whole image at half size for context, windows at full size for detail,
weighed by attention ([HRDA]).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.random import StepStream, generator_of
from .encoders import sides
from .heads import LinearHead, SegformerNeck, resize
from .segmenter import Detail, Output, Segmenter

# step of the pixels at which windows may begin: maps of both resolutions have them
STRIDE = 8
# pixels of the windows that a GPU computes together
GPU_PIXELS = 1 << 22
# top, bottom, left, right in pixels of the full image
Box = tuple[int, int, int, int]


class TwoResolutions(Segmenter):
    """logits = up((1 - a) z_context) + up(a) z_detail at the detail's resolution, a = sigmoid of a
    second head on the context.

    In evaluation windows overlap by half and are averaged. In training one window of all images,
    drawn for each forward from (seed, iteration), stands for them, and a is 0 outside it ([HRDA]
    §3.3); without draws (a teacher's network) all are read.
    """

    def __init__(self, num_classes: int, detail: tuple[int, int], **network: Any):
        super().__init__(num_classes, **network)
        if self.aux_head is not None:
            raise ValueError("model.detail has no auxiliary level: set model.multi_level to false")
        if (
            self.neck is None
            or len(self.backbone.channels) < 4
            or any(side % STRIDE for side in detail)
        ):
            raise ValueError(
                "model.detail needs a head with a neck (daformer), four stages, and sides that"
                f" {STRIDE} divides"
            )
        # width, height of a window
        self.detail = detail
        width = self.feature_channels
        self.attention_neck = SegformerNeck(self.backbone.channels, width)
        self.attention_head = LinearHead(width, self.num_classes)
        nn.init.zeros_(self.attention_head.convs[0].bias)
        self.draws: tuple[int, int] | None = None  # seed and iteration
        self.forwards = 0

    def begin_iteration(self, seed: int, iteration: int) -> None:
        self.draws = (seed, iteration)
        self.forwards = 0

    def context(self, images: Tensor) -> Tensor:
        """Return half of the (normalised) images, both sides multiples of 4."""
        height, width = (max(STRIDE, STRIDE * round(side / STRIDE)) // 2 for side in sides(images))
        return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)

    def forward(self, images: Tensor, with_aux: bool = True) -> Output:
        images = self.normalise(images)
        context = self.context(images)
        images = resize(images, tuple(2 * side for side in sides(context)))
        stages = tuple(self.backbone(context))
        features = self.neck(stages)
        coarse = self.head(self.dropout(features))
        attention = resize(
            torch.sigmoid(self.attention_head(self.dropout(self.attention_neck(stages)))),
            sides(coarse),
        )
        size = tuple(2 * side for side in sides(coarse))
        box = self.draw_box(sides(images)) if self.training and self.draws is not None else None
        detail = None
        if box is None:
            fine = self.all_details(images, size)
        else:
            own = self.detail_logits(images, [box])
            fine = _put(own, box, size, images=images)
            detail = Detail(own, box, sides(images))
            attention = attention * _inside(attention, box, sides(images))
        fused = resize((1 - attention) * coarse, size) + resize(attention, size) * fine
        return Output(fused, None, features, aux_features=stages[-2], stages=stages, detail=detail)

    def detail_logits(self, images: Tensor, boxes: list[Box]) -> Tensor:
        """Return logits `[n B,K,h,w]` of each image's window in the first box, then in the
        second.
        """
        windows = torch.cat(
            [images[..., top:bottom, left:right] for top, bottom, left, right in boxes]
        )
        return self.head(self.dropout(self.neck(tuple(self.backbone(windows)))))

    def all_details(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the mean of all windows' logits. In training, batch norm sees all windows
        together, as published.
        """
        boxes = self.boxes(sides(images))
        total = None
        once = len(boxes) if self.training else self.windows_at_once(images)
        for first in range(0, len(boxes), once):
            group = boxes[first : first + once]
            for logits, box in zip(
                self.detail_logits(images, group).unflatten(0, (len(group), -1)), group, strict=True
            ):
                if total is None:
                    total = logits.new_zeros(*logits.shape[:2], *size)
                    count = logits.new_zeros(size)
                total = total + _put(logits, box, size, images=images)
                rows, columns = _place(box, size, sides(images))
                count[rows, columns] += 1
        return total / count

    def windows_at_once(self, images: Tensor) -> int:
        """Return how many windows run together: one on a processor, which is as fast and needs less
        memory; several on a GPU.
        """
        if images.device.type == "cpu":
            return 1
        return max(1, GPU_PIXELS // (len(images) * self.detail[0] * self.detail[1]))

    def boxes(self, size: tuple[int, int]) -> list[Box]:
        """Return windows that cover (H, W), each half a window after the one before, the last at
        the end.
        """
        high = min(self.detail[1], size[0])
        wide = min(self.detail[0], size[1])
        tops = _starts(size[0], high)
        lefts = _starts(size[1], wide)
        return [(top, top + high, left, left + wide) for top in tops for left in lefts]

    def draw_box(self, size: tuple[int, int]) -> Box:
        seed, iteration = self.draws
        generator = generator_of(seed, StepStream.DETAIL_WINDOWS, iteration, self.forwards)
        self.forwards += 1
        high = min(self.detail[1], size[0])
        wide = min(self.detail[0], size[1])
        # as published, the last position is never drawn
        top, left = (
            STRIDE
            * int(torch.randint(max(1, (whole - part + 1) // STRIDE), (), generator=generator))
            for whole, part in zip(size, (high, wide), strict=True)
        )
        return top, top + high, left, left + wide

    def head_modules(self) -> list[nn.Module]:
        return [*super().head_modules(), self.attention_neck, self.attention_head]


def _starts(length: int, window: int) -> list[int]:
    step = max(STRIDE, window // 2)
    count = max(length - window + step - 1, 0) // step + 1
    return [min(number * step, length - window) for number in range(count)]


def _place(box: Box, size: tuple[int, int], pixels: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of a map of `size` that a box of an image of `pixels` has."""
    top, bottom, left, right = box
    down = size[0] / pixels[0]
    across = size[1] / pixels[1]
    return slice(round(top * down), round(bottom * down)), slice(
        round(left * across), round(right * across)
    )


def _put(logits: Tensor, box: Box, size: tuple[int, int], images: Tensor) -> Tensor:
    """A window's logits in their place in a map of `size`, 0 around."""
    rows, columns = _place(box, size, sides(images))
    logits = resize(logits, (rows.stop - rows.start, columns.stop - columns.start))
    return F.pad(logits, (columns.start, size[1] - columns.stop, rows.start, size[0] - rows.stop))


def _inside(maps: Tensor, box: Box, pixels: tuple[int, int]) -> Tensor:
    """1 where a map's points lie in the box, `[1,1,h,w]`."""
    rows, columns = _place(box, sides(maps), pixels)
    mask = maps.new_zeros(1, 1, *sides(maps))
    mask[..., rows, columns] = 1
    return mask
