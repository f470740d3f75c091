"""SegFormer's encoder (MiT-B0 to B5) by the transformers library, as `mit:b0` to `mit:b5`.

Our code holds none of NVIDIA's; its ImageNet weights are for non-commercial use, and are a file
that the user fetches.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...runtime.errors import FgdaError
from . import IMAGENET, Input

DEPTHS = {
    "b0": (2, 2, 2, 2), "b1": (2, 2, 2, 2), "b2": (3, 4, 6, 3), "b3": (3, 4, 18, 3),
    "b4": (3, 8, 27, 3), "b5": (3, 6, 40, 3),
}  # fmt: skip
# eps of block and stage norms, as published; the library has torch's 1e-5
EPS = 1e-6
# NVIDIA's, and mmsegmentation's, in the library's terms
NAMES = (
    (r"^patch_embed(\d)\.proj\.", "stages.{}.patch_embeddings.proj."),
    (r"^patch_embed(\d)\.norm\.", "stages.{}.patch_embeddings.layer_norm."),
    (r"^norm(\d)\.", "stages.{}.layer_norm."),
    (r"^block(\d)\.(\d+)\.norm1\.", "stages.{}.blocks.{}.layernorm_before."),
    (r"^block(\d)\.(\d+)\.norm2\.", "stages.{}.blocks.{}.layernorm_after."),
    (r"^block(\d)\.(\d+)\.attn\.q\.", "stages.{}.blocks.{}.attention.q_proj."),
    (r"^block(\d)\.(\d+)\.attn\.proj\.", "stages.{}.blocks.{}.attention.o_proj."),
    (
        r"^block(\d)\.(\d+)\.attn\.sr\.",
        "stages.{}.blocks.{}.attention.sequence_reduction.sequence_reduction.",
    ),
    (
        r"^block(\d)\.(\d+)\.attn\.norm\.",
        "stages.{}.blocks.{}.attention.sequence_reduction.layer_norm.",
    ),
    (r"^block(\d)\.(\d+)\.mlp\.", "stages.{}.blocks.{}.mlp."),
)
KEY_VALUE = re.compile(r"^block(\d)\.(\d+)\.attn\.kv\.(weight|bias)$")


class MitEncoder(nn.Module):
    """Images `[B,3,H,W]` to the features `[B,C,h,w]` of four stages, at strides 4 to 32."""

    strides = (4, 8, 16, 32)

    def __init__(self, net: nn.Module, channels: tuple[int, ...]):
        super().__init__()
        self.net = net
        self.channels = channels

    def forward(self, images: Tensor) -> list[Tensor]:
        x = images
        stages = []
        for stage in self.net.stages:
            x = stage(x)
            stages.append(x)
        return stages

    def layer_depths(self) -> dict[str, int]:
        """Return each parameter's block, counted through all stages; layers between blocks belong
        to the block before.
        """
        depths = {}
        blocks = [len(stage.blocks) for stage in self.net.stages]
        for name, _ in self.named_parameters():
            stage, block = re.match(r"net\.stages\.(\d+)\.(?:blocks\.(\d+)\.)?", name).groups()
            before = sum(blocks[: int(stage)])
            is_end = block is None and ".layer_norm." in name and "patch_embeddings" not in name
            depths[name] = before + (
                int(block) + 1 if block else blocks[int(stage)] if is_end else 0
            )
        return depths


def build(
    name: str, variant: str, output_stride: int | str, width: int, drop_path: float = 0.0
) -> MitEncoder:
    """Build the encoder. Raises ValueError for an unknown size, and for settings of other
    encoders.
    """
    size = name.removeprefix("mit:")
    if size not in DEPTHS:
        raise ValueError(f"no encoder 'mit:{size}' (mit:{', mit:'.join(DEPTHS)})")
    if variant != "torchvision" or width != 64 or output_stride not in ("native", 32):
        raise ValueError(
            "mit encoders have strides 4 to 32 and widths of their own: set model.output_stride to"
            " native"
        )
    try:
        from transformers import SegformerConfig, SegformerModel
    except ImportError:
        raise FgdaError(f"{name} needs the package transformers: pip install 'fgda[mit]'") from None
    channels = (32, 64, 160, 256) if size == "b0" else (64, 128, 320, 512)
    net = SegformerModel(
        SegformerConfig(depths=DEPTHS[size], hidden_sizes=channels, drop_path_rate=drop_path)
    )
    for stage in net.stages:
        for layer in (
            stage.layer_norm,
            *(
                norm
                for block in stage.blocks
                for norm in (block.layernorm_before, block.layernorm_after)
            ),
        ):
            layer.eps = EPS
    return MitEncoder(net, channels)


def input_of(name: str, variant: str) -> Input:
    return IMAGENET


def locate(name: str, weights: str, folder: Path) -> Path:
    """Return the user's own file. Raises FgdaError that says which file goes where, and its
    licence.
    """
    path = folder / f"mit_{name.removeprefix('mit:')}.pth"
    if weights == "imagenet" and path.is_file():
        return path
    raise FgdaError(
        f"NVIDIA's {path.name} (SegFormer, ImageNet) is for non-commercial use and is not"
        f" downloaded for you\nput it at {path}, or set model.weights to another file, or to none"
    )


def adapt_weights(
    state: dict[str, Tensor], name: str, output_stride: int | str
) -> dict[str, Tensor]:
    """Rename NVIDIA's weights to this encoder's names; keys and values are one layer there."""
    renamed = {}
    for key, value in state.items():
        double = KEY_VALUE.match(key)
        if double is not None:
            stage, block, part = double.groups()
            for which, half in zip("kv", value.chunk(2), strict=True):
                renamed[
                    f"net.stages.{int(stage) - 1}.blocks.{block}.attention.{which}_proj.{part}"
                ] = half.clone()
            continue
        for theirs, ours in NAMES:
            match = re.match(theirs, key)
            if match is not None:
                stage, *block = match.groups()
                renamed[f"net.{ours.format(int(stage) - 1, *block)}{key[match.end() :]}"] = value
                break
    return renamed


def describe_weights(name: str) -> dict[str, Any]:
    return {"weights": "imagenet (your own file)", "licence": "NVIDIA, non-commercial"}


def names() -> list[str]:
    return [f"mit:{size}" for size in DEPTHS]
