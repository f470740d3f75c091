"""DINOv2's plain transformer as `dinov2:vits14`, `dinov2:vitb14`, `dinov2:vitl14`, as VFM-UDA
trains it ([VFMUDA]).

Images are enlarged by a tenth, positions as DINOv2's own code does it, and the last maps are
normalised. `dinov2:tiny14` has no published weights: for two cores and for tests.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...runtime.errors import FgdaError
from . import IMAGENET, Input, sides
from . import timm as timm_family

PATCH = 14
# positions a side of DINOv2's
STORED = 37
# channels, blocks
SIZES = {"vits14": (384, 12), "vitb14": (768, 12), "vitl14": (1024, 24), "tiny14": (64, 4)}
PUBLISHED = {"vits14": "small", "vitb14": "base", "vitl14": "large"}
# maps after every so many blocks, the last included
STAGES = 4
# before a side is cut to whole patches: 1024 pixels become 1120
ENLARGED = 1.1


class PlainTransformer(nn.Module):
    """Patch embedding, positions and blocks of DINOv2, with its parameter names."""

    # checkpoint_activations covers the blocks, which have no batch norm
    recomputes_norms = False

    def __init__(self, channels: int, depth: int):
        super().__init__()
        from timm.models.vision_transformer import Block

        self.channels = (channels,) * STAGES
        self.checkpoint_activations = False
        self.cls_token = nn.Parameter(torch.zeros(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + STORED**2, channels))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, channels, PATCH, stride=PATCH)})
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.blocks = nn.ModuleList(
            Block(channels, channels // 64, qkv_bias=True, init_values=1.0, norm_layer=norm)
            for _ in range(depth)
        )

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Return the tokens `[B,h*w,C]` and the class token `[B,1,C]`, with positions, and (h, w);
        the sides of the images are multiples of 14.
        """
        patches = self.patch_embed["proj"](images)
        size = sides(patches)
        positions = self.positions(size)
        x = patches.flatten(2).transpose(1, 2) + positions[:, 1:]
        cls = (self.cls_token + positions[:, :1]).expand(patches.shape[0], -1, -1)
        return x, cls, size

    def run(self, blocks: nn.ModuleList, tokens: Tensor) -> Tensor:
        for block in blocks:
            recomputed = self.checkpoint_activations and self.training
            tokens = checkpoint(block, tokens, use_reentrant=False) if recomputed else block(tokens)
        return tokens

    def positions(self, size: tuple[int, int]) -> Tensor:
        """Return the positions `[1,1+h*w,C]`, enlarged as DINOv2's code does: by a factor that is
        0.1 of a cell too large.
        """
        stored = self.pos_embed.float()
        side = math.isqrt(self.pos_embed.shape[1] - 1)
        if size == (side, side):
            return self.pos_embed
        grid = stored[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        factors = [(cells + 0.1) / side for cells in size]
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic", align_corners=False)
        return torch.cat([stored[:, :1], grid.flatten(2).transpose(1, 2)], dim=1).to(
            self.pos_embed.dtype
        )

    def layer_depths(self) -> dict[str, int]:
        """Return the layer of each of the transformer's parameters: 0 for the embeddings, n + 1 for
        block n, and one more for a last norm.
        """
        names = [name for name, _ in self.named_parameters()]
        depths = {
            name: 0 for name in names if name.startswith(("cls_token", "pos_embed", "patch_embed."))
        }
        depths |= {name: len(self.blocks) + 1 for name in names if name.startswith("norm.")}
        inner = ((name, name.split(".")) for name, _ in self.blocks.named_parameters())
        return depths | {f"blocks.{name}": int(parts[0]) + 1 for name, parts in inner}


class DinoEncoder(PlainTransformer):
    """Normalised images `[B,3,H,W]` of any size to four maps `[B,C,h,w]` at stride 14 of the
    enlarged image, after every quarter of the blocks, each normalised.
    """

    strides = (PATCH,) * STAGES

    def __init__(self, channels: int, depth: int):
        super().__init__(channels, depth)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        # a random ViT starts as DINOv2's does
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, images: Tensor) -> list[Tensor]:
        size = tuple(max(1, int(side * ENLARGED) // PATCH) * PATCH for side in sides(images))
        x, cls, cells = self.embed(
            F.interpolate(images, size, mode="bilinear", align_corners=False)
        )
        tokens = torch.cat([cls, x], dim=1)
        each = len(self.blocks) // STAGES
        maps = []
        for stage in range(STAGES):
            tokens = self.run(self.blocks[stage * each : (stage + 1) * each], tokens)
            maps.append(self.norm(tokens)[:, 1:].transpose(1, 2).unflatten(2, cells))
        return maps


def build(
    name: str, variant: str, output_stride: int | str, width: int, drop_path: float = 0.0
) -> DinoEncoder:
    """Build the encoder. Raises ValueError for an unknown size, and for settings that the network
    cannot have.
    """
    check_settings("dinov2", name, variant, width=width, drop_path=drop_path)
    if output_stride not in ("native", PATCH):
        raise ValueError("DINOv2 has stride 14 and no other: set model.output_stride to native")
    return DinoEncoder(*SIZES[name.partition(":")[2]])


def check_settings(family: str, name: str, variant: str, width: int, drop_path: float) -> None:
    """Raise ValueError for an unknown size of a family, or a setting that belongs to others."""
    size = name.partition(":")[2]
    if size not in SIZES:
        known = ", ".join(f"{family}:{one}" for one in SIZES)
        raise ValueError(f"no size '{size}': {known} are known")
    if variant != "torchvision" or width != 64 or drop_path:
        raise ValueError(
            f"model.variant, model.width and model.drop_path do nothing in {family}: leave them out"
        )


def input_of(name: str, variant: str) -> Input:
    return IMAGENET


def locate(name: str, weights: str, folder: Path) -> Path:
    """Return the file of DINOv2's published weights (`imagenet` and `dinov2` alike). Raises
    FgdaError that says which file goes where.
    """
    word = PUBLISHED.get(name.removeprefix("dinov2:"))
    if word is None or weights not in ("imagenet", "dinov2"):
        raise FgdaError(
            f"no {weights} weights are known for {name}: set model.weights to dinov2, none or a"
            " file"
        )
    return timm_family.locate(f"timm:vit_{word}_patch14_dinov2", "imagenet", folder)


def adapt_weights(
    state: dict[str, Tensor], name: str, output_stride: int | str
) -> dict[str, Tensor]:
    """Take the transformer's tensors out of DINOv2's file, ours (`backbone.…`) or VFM-UDA's."""
    state = inner_state(state)
    wanted = build(name, "torchvision", "native", width=64).state_dict()
    missing = [key for key in wanted if key not in state]
    if missing:
        raise ValueError(f"not DINOv2's ViT: it has no {missing[0]}")
    return {key: state[key] for key in wanted}


def inner_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return an encoder's own tensors, without what stands before their names in whole networks."""
    for prefix in ("network.encoder.", "backbone.", "encoder."):
        inner = {
            key.removeprefix(prefix): value
            for key, value in state.items()
            if key.startswith(prefix)
        }
        state = inner or state
    return state


def names() -> list[str]:
    return [f"dinov2:{size}" for size in SIZES]


def describe_weights(name: str) -> dict[str, str | None]:
    """Say where named weights come from and their licence."""
    if name.removeprefix("dinov2:") not in PUBLISHED:
        return {"weights": "none", "licence": None}
    return {"weights": "dinov2", "licence": "apache-2.0"}
