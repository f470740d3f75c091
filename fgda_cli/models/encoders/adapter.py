"""DINOv2 with a ViT-Adapter ([VFMUDA++], [ViTAdapter]) as `adapter:vits14`, `adapter:vitb14`,
`adapter:vitl14`.

A convolutional branch gives what a plain transformer lacks, fine maps at strides 4 to 32, and
trades with it four times by deformable attention. Parameter names are the published ones below
`encoder.`. `adapter:tiny14` has no published weights: for two cores and for tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...runtime.errors import FgdaError
from . import IMAGENET, Input, sides
from . import timm as timm_family
from .dinov2 import PATCH, PUBLISHED, SIZES, PlainTransformer, check_settings, inner_state

# (h, w) of each level
Sizes = list[tuple[int, int]]


def sample(value: Tensor, sizes: Sizes, locations: Tensor, weights: Tensor) -> Tensor:
    """Return `[B,Q,M*D]`: for each query and head the weighted sum of bilinear samples; 0 beyond a
    map's border.

    value `[B,N,M,D]`, the levels' tokens one after another, row by row; locations `[B,Q,M,L,P,2]`,
    (x, y) in 0 to 1; weights `[B,Q,M,L*P]`. A level at a time, so that the samples of all levels
    never lie in memory twice.
    """
    count, _, heads, width = value.shape
    queries = locations.shape[1]
    levels = len(sizes)
    points = locations.shape[4]
    grid = (
        (2 * locations - 1)
        .permute(0, 2, 3, 1, 4, 5)
        .reshape(count * heads, levels, queries, points, 2)
    )
    weights = weights.view(count, queries, heads, levels, points).permute(0, 2, 3, 1, 4)
    weights = weights.reshape(count * heads, levels, 1, queries, points)
    sampled = 0.0
    tokens = value.split([h * w for h, w in sizes], dim=1)
    for level, ((h, w), level_tokens) in enumerate(zip(sizes, tokens, strict=True)):
        maps = level_tokens.permute(0, 2, 3, 1).reshape(count * heads, width, h, w)
        samples = F.grid_sample(
            maps, grid[:, level], mode="bilinear", padding_mode="zeros", align_corners=False
        )
        sampled = sampled + (samples * weights[:, level]).sum(-1)  # [B*M,D,Q]
    return sampled.view(count, heads * width, queries).transpose(1, 2)


def centres(sizes: Sizes, like: Tensor) -> Tensor:
    """Return the centres (x, y) in 0 to 1 of the cells of all maps, row by row, `[Q,2]`."""
    points = []
    for h, w in sizes:
        y, x = (
            (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
            for side in (h, w)
        )
        points.append(torch.stack([x.expand(h, w), y[:, None].expand(h, w)], dim=-1).reshape(-1, 2))
    return torch.cat(points)


def cells(sizes: Sizes, like: Tensor) -> Tensor:
    """Return the number of cells (across, down) of each map, `[L,1,2]`.

    Filled on the device: a list that is sent there would make the host wait for a GPU.
    """
    counts = [like.new_full((1,), side) for h, w in sizes for side in (w, h)]
    return torch.cat(counts).view(-1, 1, 2)


def in_fp32(device: torch.device) -> AbstractContextManager:
    """Turn autocast off inside; the meta device knows none."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


class DeformableAttention(nn.Module):
    """Queries `[B,Q,C]` and the levels' tokens `[B,N,C]` to `[B,Q,C]`; a head is `ratio` C / heads
    wide.

    Computed in fp32 under autocast: 16 bits cannot name a place among 140 cells.
    """

    def __init__(self, channels: int, levels: int, heads: int, points: int = 4, ratio: float = 0.5):
        super().__init__()
        inner = int(channels * ratio)
        self.levels = levels
        self.heads = heads
        self.points = points
        self.sampling_offsets = nn.Linear(channels, heads * levels * points * 2)
        self.attention_weights = nn.Linear(channels, heads * levels * points)
        self.value_proj = nn.Linear(channels, inner)
        self.output_proj = nn.Linear(inner, channels)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Let head m look in direction 2 pi m / M, its points 1, 2, … cells away, all with equal
        weights.
        """
        angles = torch.arange(self.heads, dtype=torch.float64) * (2 * math.pi / self.heads)
        direction = torch.stack([angles.cos(), angles.sin()], dim=-1)
        # onto the square around a cell: diagonal heads look at its corners
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, dtype=torch.float64)
        # [M,1,P,2], the same on every level
        offsets = direction[:, None, None] * steps[None, None, :, None]
        offsets = offsets.expand(-1, self.levels, -1, -1)
        self.sampling_offsets.bias.copy_(offsets.reshape(-1).float())
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, queries: Tensor, tokens: Tensor, sizes: Sizes, reference: Tensor) -> Tensor:
        """Attend from queries at `reference` `[Q,2]`, (x, y) in 0 to 1, the same in all levels."""
        with in_fp32(queries.device):
            queries, tokens = (
                x if x.dtype == torch.float64 else x.float() for x in (queries, tokens)
            )
            count, length, _ = queries.shape
            value = self.value_proj(tokens).view(count, tokens.shape[1], self.heads, -1)
            shape = (count, length, self.heads, self.levels, self.points)
            offsets = self.sampling_offsets(queries).view(*shape, 2) / cells(sizes, queries)
            weights = (
                self.attention_weights(queries).view(count, length, self.heads, -1).softmax(-1)
            )
            locations = reference[:, None, None, None] + offsets
            return self.output_proj(sample(value, sizes, locations, weights=weights))


COARSEST = 32
# 1024 pixels become 1120, which both branches divide
ENLARGED = 35 / 32
INTERACTIONS = 4
NORM_MOMENTUM = 0.01


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, momentum=NORM_MOMENTUM)


class SpatialPrior(nn.Module):
    """Normalised images `[B,3,H,W]` to maps `[B,C,h,w]` at strides 4, 8, 16, 32."""

    def __init__(self, channels: int, width: int = 64):
        super().__init__()

        def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
                _norm(outputs),
                nn.ReLU(inplace=True),
            ]

        self.stem = nn.Sequential(
            *block(3, width, 2),
            *block(width, width, 1),
            *block(width, width, 1),
            nn.MaxPool2d(3, 2, 1),
        )
        self.conv2 = nn.Sequential(*block(width, 2 * width, 2))
        self.conv3 = nn.Sequential(*block(2 * width, 4 * width, 2))
        self.conv4 = nn.Sequential(*block(4 * width, 4 * width, 2))
        for number, inputs in enumerate((width, 2 * width, 4 * width, 4 * width), 1):
            setattr(self, f"fc{number}", nn.Conv2d(inputs, channels, 1))

    def forward(self, images: Tensor) -> list[Tensor]:
        s1 = self.stem(images)
        s2 = self.conv2(s1)
        s3 = self.conv3(s2)
        return [self.fc1(s1), self.fc2(s2), self.fc3(s3), self.fc4(self.conv4(s3))]


class DepthwiseConv(nn.Module):
    """One depthwise 3x3 convolution over each map of the tokens `[B,N,C]`."""

    def __init__(self, channels: int):
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, tokens: Tensor, sizes: Sizes) -> Tensor:
        return to_tokens([self.dwconv(part) for part in to_maps(tokens, sizes)])


class ConvMlp(nn.Module):
    """fc2(GELU(depthwise(fc1(x)))), a quarter as wide inside."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // 4)
        self.dwconv = DepthwiseConv(channels // 4)
        self.fc2 = nn.Linear(channels // 4, channels)

    def forward(self, tokens: Tensor, sizes: Sizes) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(tokens), sizes)))


def again(read: Callable[..., Tensor], tokens: Tensor, *others: Any) -> Tensor:
    """Return `read(tokens, *others)`, computed once more for its gradient: it would keep a quarter
    of what a pass keeps.
    """
    if tokens.requires_grad and torch.is_grad_enabled():
        return checkpoint(read, tokens, *others, use_reentrant=False, preserve_rng_state=False)
    return read(tokens, *others)


class Injector(nn.Module):
    """The transformer's tokens read from the three maps; `gamma` starts at 0, so that nothing
    changes at first.
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.query_norm = nn.LayerNorm(channels)
        self.feat_norm = nn.LayerNorm(channels)
        self.attn = DeformableAttention(channels, 3, heads)
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, c: Tensor, sizes: Sizes, reference: Tensor) -> Tensor:
        return x + self.gamma * again(self.read, x, c, sizes, reference)

    def read(self, x: Tensor, c: Tensor, sizes: Sizes, reference: Tensor) -> Tensor:
        return self.attn(self.query_norm(x), self.feat_norm(c), sizes, reference)


class Extractor(nn.Module):
    """The maps' tokens read from the transformer's."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.query_norm, self.feat_norm, self.ffn_norm = (nn.LayerNorm(channels) for _ in range(3))
        self.attn = DeformableAttention(channels, 1, heads)
        self.ffn = ConvMlp(channels)

    def forward(
        self, c: Tensor, x: Tensor, own: Sizes, size: tuple[int, int], reference: Tensor
    ) -> Tensor:
        c = c + again(self.read, c, x, [size], reference)
        return c + self.ffn(self.ffn_norm(c), own)

    def read(self, c: Tensor, x: Tensor, sizes: Sizes, reference: Tensor) -> Tensor:
        return self.attn(self.query_norm(c), self.feat_norm(x), sizes, reference)


class Interaction(nn.Module):
    """Inject, run some of the transformer's blocks, extract; the last interaction extracts three
    times.
    """

    def __init__(self, channels: int, heads: int, last: bool):
        super().__init__()
        self.injector = Injector(channels, heads)
        self.extractor = Extractor(channels, heads)
        self.extra_extractors = (
            nn.ModuleList([Extractor(channels, heads) for _ in range(2)]) if last else None
        )

    def forward(
        self,
        x: Tensor,
        c: Tensor,
        cls: Tensor,
        run,
        own: Sizes,
        size: tuple[int, int],
        places: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return new tokens x `[B,h*w,C]` and c `[B,N,C]` and the class token; `run` are the
        transformer's blocks between.
        """
        tokens = run(torch.cat([cls, self.injector(x, c, own, places[0])], dim=1))
        cls = tokens[:, :1]
        x = tokens[:, 1:]
        for extractor in (self.extractor, *(self.extra_extractors or ())):
            c = extractor(c, x, own, size, places[1])
        return x, c, cls


class AdapterEncoder(PlainTransformer):
    """Normalised images `[B,3,H,W]` of any size to `[B,C,h,w]` at strides 4, 8, 16, 32 of the
    enlarged image, fine ones first.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, channels: int, depth: int):
        super().__init__(channels, depth)
        heads = channels // 64
        self.level_embed = nn.Parameter(torch.zeros(3, channels))
        self.spm = SpatialPrior(channels)
        self.interactions = nn.ModuleList(
            Interaction(channels, heads, k == INTERACTIONS - 1) for k in range(INTERACTIONS)
        )
        self.up = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.norm1, self.norm2, self.norm3, self.norm4 = (_norm(channels) for _ in range(4))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set random weights as published; a random ViT starts as DINOv2's does, from a normal of
        0.02 cut off at two.
        """
        convolutions = (nn.Conv2d, nn.ConvTranspose2d)
        for layer in self.modules():
            if isinstance(layer, convolutions):
                height, width = layer.kernel_size
                fan_out = height * width * layer.out_channels // layer.groups
                nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / fan_out))
            elif isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
            if isinstance(layer, (*convolutions, nn.Linear)) and layer.bias is not None:
                nn.init.zeros_(layer.bias)
        for layer in self.modules():
            if isinstance(layer, DeformableAttention):
                # its linear layers were initialised above
                layer.reset_parameters()
        for values, std in (
            (self.cls_token, 1e-6),
            (self.pos_embed, 0.02),
            (self.level_embed, 1.0),
        ):
            nn.init.normal_(values, std=std)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Resize the images for both branches, each to its own grid; at 1024 pixels a side both
        read 1120, as published.
        """
        vit, spm = (
            tuple(max(1, round(side * ENLARGED / step)) * step for side in sides(images))
            for step in (PATCH, COARSEST)
        )
        enlarged = F.interpolate(images, vit, mode="bilinear", align_corners=False)
        return self.stages(
            enlarged,
            (
                enlarged
                if spm == vit
                else F.interpolate(images, spm, mode="bilinear", align_corners=False)
            ),
        )

    def stages(self, vit_image: Tensor, spm_image: Tensor) -> list[Tensor]:
        """Return the four maps of an image whose sides are multiples of 14, and of it at sides that
        are multiples of 32.
        """
        c1, *maps = self.spm(spm_image)
        own = [sides(part) for part in maps]
        c = to_tokens(
            [part + e[:, None, None] for part, e in zip(maps, self.level_embed, strict=True)]
        )
        x, cls, size = self.embed(vit_image)
        places = (centres([size], self.pos_embed), centres(own, self.pos_embed))
        each = len(self.blocks) // INTERACTIONS
        outputs = []
        for number, interaction in enumerate(self.interactions):
            run = partial(self.run, self.blocks[number * each : (number + 1) * each])
            x, c, cls = interaction(x, c, cls, run, own, size, places)
            outputs += to_maps(x, [size])
        c2, c3, c4 = to_maps(c, own)
        stages = (c1 + self.up(c2), c2, c3, c4)
        norms = (self.norm1, self.norm2, self.norm3, self.norm4)
        return [
            norm(stage + F.interpolate(output, sides(stage), mode="bilinear", align_corners=False))
            for norm, stage, output in zip(norms, stages, outputs, strict=True)
        ]

    def head_parameters(self) -> list[nn.Parameter]:
        """Return the adapter's own parameters, which are new beside a pretrained transformer and
        learn at the heads' rate.
        """
        depths = self.layer_depths()
        return [parameter for name, parameter in self.named_parameters() if name not in depths]


def to_maps(tokens: Tensor, sizes: Sizes) -> list[Tensor]:
    """Split tokens `[B,N,C]` of several maps, one after another, into those maps `[B,C,h,w]`."""
    parts = tokens.split([h * w for h, w in sizes], dim=1)
    return [
        part.transpose(1, 2).unflatten(2, size) for part, size in zip(parts, sizes, strict=True)
    ]


def to_tokens(maps: list[Tensor]) -> Tensor:
    return torch.cat([part.flatten(2).transpose(1, 2) for part in maps], dim=1)


def build(
    name: str, variant: str, output_stride: int | str, width: int, drop_path: float = 0.0
) -> AdapterEncoder:
    """Build the encoder. Raises ValueError for an unknown size, and for settings that the network
    cannot have.
    """
    check_settings("adapter", name, variant, width=width, drop_path=drop_path)
    if output_stride not in ("native", COARSEST):
        raise ValueError(
            "an adapter's coarsest stage has stride 32 and no other: set model.output_stride to"
            " native"
        )
    return AdapterEncoder(*SIZES[name.partition(":")[2]])


def input_of(name: str, variant: str) -> Input:
    return IMAGENET


def locate(name: str, weights: str, folder: Path) -> Path:
    """Return the file of `weights`: imagenet is the authors' adapter trained on ImageNet-1k, dinov2
    the transformer alone.

    Raises FgdaError that says which file goes where.
    """
    size = name.removeprefix("adapter:")
    word = PUBLISHED.get(size)
    if word is None or weights not in ("imagenet", "dinov2"):
        raise FgdaError(
            f"no {weights} weights are known for {name}: set model.weights to imagenet, dinov2,"
            " none or a file"
        )
    if weights == "dinov2":
        return timm_family.locate(f"timm:vit_{word}_patch14_dinov2", "imagenet", folder)
    file = f"dinov2_{word}_with_vitadapter_pretraining_in1k_step50000.ckpt"
    return timm_family.from_hub(
        f"tue-mps/vfmuda_plusplus_{word}_in1k_pretraining", file, folder / file
    )


def adapt_weights(
    state: dict[str, Tensor], name: str, output_stride: int | str
) -> dict[str, Tensor]:
    """Rename published weights (`network.encoder.…`), ours (`backbone.…`), or DINOv2's, beside
    which the adapter stays random.
    """
    state = inner_state(state)
    if "level_embed" in state:
        return state
    own = build(name, "torchvision", "native", width=64)
    wanted = own.layer_depths()
    started = own.state_dict()
    missing = [key for key in wanted if key not in state]
    if missing:
        raise ValueError(f"neither an adapter nor DINOv2's ViT: it has no {missing[0]}")
    return started | {key: state[key] for key in wanted}


def names() -> list[str]:
    return [f"adapter:{size}" for size in SIZES]


def describe_weights(name: str) -> dict[str, str | None]:
    """Say where named weights come from and their licence: the authors' page gives none, DINOv2's
    is Apache-2.0.
    """
    if name.removeprefix("adapter:") not in PUBLISHED:
        return {"weights": "none", "licence": None}
    return {"weights": "imagenet, dinov2", "licence": "DINOv2 apache-2.0, the adapter's not stated"}
