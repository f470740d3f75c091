"""Features of a frozen encoder, computed once for each image and kept on disk as bf16."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..runtime.files import whole_file

Stages = list[Tensor]


class FeatureCache:
    """The stages of an encoder by the image's own bytes, so that a changed image is another one.

    A step computes with the rounded values whether they were read or have just been computed: a
    resumed run goes on bit by bit.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.read = 0
        self.computed = 0

    def __deepcopy__(self, memo: dict) -> FeatureCache:
        """A teacher's encoder is the same one."""
        return self

    def stages(self, images: Tensor, compute: Callable[[Tensor], Stages]) -> Stages:
        """Return the encoder's stages `[B,C,h,w]` of uint8 images `[B,3,H,W]`."""
        paths = [self.folder / f"{_key(image)}.safetensors" for image in images]
        missing = [number for number, path in enumerate(paths) if not path.is_file()]
        if missing:
            with torch.no_grad():
                computed = [stage.bfloat16() for stage in compute(images[missing])]
            for row, number in enumerate(missing):
                _write(paths[number], [stage[row] for stage in computed])
        self.computed += len(missing)
        self.read += len(paths) - len(missing)
        rows = [_read(path, images.device) for path in paths]
        return [torch.stack(values).float() for values in zip(*rows, strict=True)]


def _key(image: Tensor) -> str:
    digest = hashlib.sha1(str(tuple(image.shape)).encode(), usedforsecurity=False)
    digest.update(image.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, stages: Stages) -> None:
    from safetensors.torch import save_file

    tensors = {str(number): stage.cpu().contiguous() for number, stage in enumerate(stages)}
    # a lost power supply costs features, which are computed again
    with whole_file(path, sync=False) as partial:
        save_file(tensors, os.fspath(partial))


def _read(path: Path, device: torch.device) -> Stages:
    from safetensors.torch import load_file

    tensors = load_file(os.fspath(path), device=str(device))
    return [tensors[str(number)] for number in range(len(tensors))]


def bytes_an_image(encoder: nn.Module, size: tuple[int, int]) -> int:
    """Return the bytes that the features of an image of (width, height) take; the encoder lies on
    the meta device.
    """
    with torch.no_grad():
        stages = encoder(torch.zeros(1, 3, size[1], size[0], device="meta"))
    return sum(2 * stage.numel() for stage in stages)
