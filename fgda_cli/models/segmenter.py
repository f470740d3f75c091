"""The segmentation network: an encoder, a head on its last stage and, multi-level, one before
([ADAPT], [Z22] §4.2).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..data.geometry import InputRule
from ..runtime.distributed import ProcessGroup
from . import encoders, heads, normalisation
from .feature_cache import FeatureCache
from .normalisation import Normalise

BatchNormMode = Literal["frozen", "statistics", "train", "target", "mixed"]


class Detail(NamedTuple):
    """Output of a window at full resolution, where there are two resolutions."""

    # [B,K,h,w] of the window alone
    logits: Tensor
    # top, bottom, left, right
    box: tuple[int, int, int, int]
    # H, W of the image that the box lies in
    size: tuple[int, int]

    def crop(self, maps: Tensor) -> Tensor:
        """Return the window's part of maps `[B,H,W]` of the image."""
        down, across = (whole / own for whole, own in zip(maps.shape[-2:], self.size, strict=True))
        top, bottom, left, right = self.box
        return maps[
            ...,
            round(top * down) : round(bottom * down),
            round(left * across) : round(right * across),
        ]


class Output(NamedTuple):
    """Output of a forward pass, at the encoder's stride but for the first stages."""

    logits: Tensor  # [B,K,h,w]
    # [B,K,h,w] from the stage before the last, multi-level only
    aux_logits: Tensor | None
    # [B,C,h,w] the head's and the discriminator's input: the last stage, or the fused ones
    features: Tensor
    # [B,C',h,w] of the stage before
    aux_features: Tensor
    # the encoder's features, coarse ones last
    stages: tuple[Tensor, ...] = ()
    # the detail window, in training at two resolutions
    detail: Detail | None = None


class Segmenter(nn.Module):
    """A segmentation network, DeepLab-V2 by default; input RGB 0-255 `[B,3,H,W]`, normalisation
    included.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        variant: str = "torchvision",
        output_stride: int | str = 8,
        width: int = 64,
        multi_level: bool = True,
        dilations: tuple[int, ...] = (6, 12, 18, 24),
        batch_norm_eps: float | None = None,
        head: str = "aspp",
        head_width: int = 128,
        align_corners: bool = True,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.align_corners = align_corners
        family = encoders.family(backbone)
        self.normalise = Normalise(family.input_of(backbone, variant))
        self.backbone = family.build(backbone, variant, output_stride, width, drop_path)
        for layer in normalisation.batch_norms(self.backbone) if batch_norm_eps is not None else ():
            layer.eps = batch_norm_eps
        *_, self.aux_channels, self.feature_channels = self.backbone.channels
        built = heads.build(
            head,
            num_classes,
            self.backbone.channels,
            strides=self.backbone.strides,
            width=head_width,
            dilations=dilations,
            multi_level=multi_level,
        )
        self.neck, self.head, self.aux_head = built
        self.dropout = nn.Dropout2d(dropout)
        self.feature_channels = self.feature_channels if self.neck is None else head_width
        self.num_classes = num_classes
        # modules that stay in eval mode while training: fixed norms, and a frozen encoder
        self.kept_in_eval: list[nn.Module] = []
        # how much of the encoder is trained, and names of the parameters that are not (tuning.py)
        self.tuned = "full"
        self.frozen: frozenset[str] = frozenset()
        self.feature_cache: FeatureCache | None = None
        # the size at which an image enters (set from a checkpoint)
        self.input_rule: InputRule | None = None

    def forward(self, images: Tensor, with_aux: bool = True) -> Output:
        """Return the output; in training with the auxiliary head's, unless nothing reads it."""
        stages = self.encode(images)
        reads_aux = with_aux and self.training and self.aux_head is not None
        aux_logits = self.aux_head(stages[-2]) if reads_aux else None
        features = stages[-1] if self.neck is None else self.neck(stages)
        return Output(
            self.head(self.dropout(features)),
            aux_logits,
            features,
            aux_features=stages[-2],
            stages=stages,
        )

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the encoder's stages, from the cache of a frozen one where there is one."""

        def compute(chosen: Tensor) -> list[Tensor]:
            return self.backbone(self.normalise(chosen))

        if self.feature_cache is None or images.dtype != torch.uint8:
            return tuple(compute(images))
        return tuple(self.feature_cache.stages(images, compute))

    def begin_iteration(self, seed: int, iteration: int) -> None:
        """Set the numbers from which the network draws in training."""

    def without_drops(self) -> Segmenter:
        """Turn off dropout and drop path for good, as a teacher needs ([DAFormer]), and return the
        model.
        """
        for module in self.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
            # stochastic depth of timm and transformers
            elif hasattr(module, "drop_prob"):
                module.drop_prob = 0.0
        return self

    def keep_frozen(self, how: str) -> None:
        """Take the encoder's parameters that need no gradient now as frozen for good, and its norms
        with them.
        """
        self.tuned = how
        self.frozen = frozenset(
            f"backbone.{name}"
            for name, parameter in self.backbone.named_parameters()
            if not parameter.requires_grad
        )

    def twin(self) -> Segmenter:
        """Return a copy that has in common with this network what `model.tune` froze."""
        shared = {id(p): p for name, p in self.named_parameters() if name in self.frozen}
        return copy.deepcopy(self, shared)

    def frozen_modules(self) -> list[nn.Module]:
        """Return the encoder's frozen norms, and without low-rank updates all of its modules that
        train nothing (they drop nothing either).
        """
        if self.tuned == "full":
            return []
        layers = normalisation.batch_norms(self.backbone)
        if self.tuned == "frozen":
            layers = list(self.backbone.modules())
        fixed = {id(p) for name, p in self.named_parameters() if name in self.frozen}
        return [layer for layer in layers if all(id(p) in fixed for p in layer.parameters())]

    def context(self, images: Tensor) -> Tensor:
        """Return the input of `Output.stages`: the (normalised) images, or half of them at two
        resolutions.
        """
        return images

    def set_batch_norm(self, mode: BatchNormMode, fresh_heads: bool = False) -> None:
        """Set how batch norm trains.

        `frozen` (statistics and affine stay, [Z22] §4.2), `statistics` (they run, affine stays, as
        ADVENT and AdaptSegNet train), `train`, or `target` (as train; the method lets the
        statistics follow the target). `mixed` is frozen after `mix_statistics`. With `fresh_heads`,
        norms outside the encoder have never seen an image: they train in every mode.
        """
        layers = normalisation.batch_norms(self)
        fresh = (
            set(layers) - set(normalisation.batch_norms(self.backbone)) if fresh_heads else set()
        )
        frozen = self.frozen_modules()
        fixed = set(frozen)
        self.kept_in_eval = frozen + [
            layer
            for layer in layers
            if mode in ("frozen", "mixed") and layer not in fresh and layer not in fixed
        ]
        for layer in layers:
            trains = layer in fresh or mode in ("train", "target")
            layer.requires_grad_(trains and layer not in fixed)
        self.train(self.training)

    def untracked_statistics(self) -> AbstractContextManager[None]:
        """Let forward passes in training mode normalise by the batch, but keep the running
        statistics unchanged inside.
        """
        return _momentum(normalisation.batch_norms(self), 0.0)

    def mix_statistics(self, batches: Iterable[Tensor], share: float) -> bool:
        """Blend the statistics of these images (RGB 0-255 `[B,3,H,W]`) into batch norm's; False
        where there is none.
        """
        return normalisation.mix_statistics(self, batches, share)

    def share_batch_norm(self, process_group: ProcessGroup) -> None:
        """Let batch norm in training mode see the images of all processes."""
        normalisation.share_batch_norm(self, process_group)

    def own_statistics(self) -> AbstractContextManager[None]:
        """Let batch norm see this process's images alone inside."""
        return normalisation.unshared(self)

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        for layer in self.kept_in_eval:
            layer.eval()
        return self

    def head_modules(self) -> list[nn.Module]:
        """Return the modules that learn at the heads' rate."""
        return [module for module in (self.neck, self.head, self.aux_head) if module is not None]

    def new_in_encoder(self) -> list[nn.Parameter]:
        """Return the encoder's own parts that learn with the heads, where it names some
        (`head_parameters`).
        """
        return self.backbone.head_parameters() if hasattr(self.backbone, "head_parameters") else []

    def parameter_groups(self, lr: float, head_lr_factor: float) -> list[dict]:
        """Return optimiser groups: the backbone at `lr`, the heads at `lr * head_lr_factor`; frozen
        parameters are left out.
        """
        new = self.new_in_encoder()
        known = {id(p) for p in new}
        body = [p for p in self.backbone.parameters() if p.requires_grad and id(p) not in known]
        head = [
            p
            for p in (*new, *(p for module in self.head_modules() for p in module.parameters()))
            if p.requires_grad
        ]
        return [{"params": body, "lr": lr}, {"params": head, "lr": lr * head_lr_factor}]


@contextmanager
def _momentum(layers: list[nn.BatchNorm2d], value: float) -> Iterator[None]:
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = value
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode inside, and back afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
