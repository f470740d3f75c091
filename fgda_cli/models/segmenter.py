"""The segmentation network: an encoder, a head on its last stage and, multi-level, one before ([ADAPT], [Z22] §4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, NamedTuple

from torch import Tensor, nn

from ..data.geometry import InputRule
from ..runtime.distributed import ProcessGroup
from . import encoders, normalisation
from .heads.aspp import AsppHead
from .normalisation import Normalise

BatchNormMode = Literal["frozen", "statistics", "train", "target"]


class Output(NamedTuple):
    """What a forward returns, all but the first stages at the encoder's stride."""

    logits: Tensor  # [B,K,h,w]
    aux_logits: Tensor | None  # [B,K,h,w] from the stage before the last, multi-level only
    features: Tensor  # [B,C,h,w] of the last stage, the discriminator's input
    aux_features: Tensor  # [B,C',h,w] of the stage before
    stages: tuple[Tensor, ...] = ()  # the encoder's features, coarse ones last


class Segmenter(nn.Module):
    """DeepLab-V2 by default; input RGB 0-255 `[B,3,H,W]`, normalisation included."""

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101",
        variant: str = "torchvision",
        output_stride: int = 8,
        width: int = 64,
        multi_level: bool = True,
        dilations: tuple[int, ...] = (6, 12, 18, 24),
        batch_norm_eps: float = 1e-5,
    ):
        super().__init__()
        self.normalise = Normalise(variant)
        self.backbone = encoders.family(backbone).build(backbone, variant, output_stride, width)
        for layer in normalisation.batch_norms(self.backbone):
            layer.eps = batch_norm_eps
        *_, aux_channels, channels = self.backbone.channels
        self.head = AsppHead(channels, num_classes, dilations)
        self.aux_head = AsppHead(aux_channels, num_classes, dilations) if multi_level else None
        self.num_classes, self.fixed_norms = num_classes, False
        self.input_rule: InputRule | None = None  # at which size an image enters (set from a checkpoint)

    def forward(self, images: Tensor) -> Output:
        stages = tuple(self.backbone(self.normalise(images)))
        aux_logits = self.aux_head(stages[-2]) if self.aux_head is not None and self.training else None
        return Output(self.head(stages[-1]), aux_logits, stages[-1], stages[-2], stages)

    def set_batch_norm(self, mode: BatchNormMode) -> None:
        """How batch norm trains: `frozen` (statistics and affine stay, [Z22] §4.2), `statistics` (they run, affine stays, as
        ADVENT and AdaptSegNet train), `train`, or `target` (as train; the method lets the statistics follow the target)."""
        self.fixed_norms = mode == "frozen"
        for layer in normalisation.batch_norms(self):
            layer.requires_grad_(mode in ("train", "target"))
        self.train(self.training)

    def untracked_statistics(self) -> AbstractContextManager[None]:
        """Inside, forwards in training mode normalise by the batch but leave the running statistics as they are."""
        return _momentum(normalisation.batch_norms(self), 0.0)

    def share_batch_norm(self, process_group: ProcessGroup) -> None:
        """Let batch norm in training mode see the images of all processes."""
        normalisation.share_batch_norm(self, process_group)

    def own_statistics(self) -> AbstractContextManager[None]:
        """Inside, batch norm sees this process's images alone."""
        return normalisation.unshared(self)

    def train(self, mode: bool = True) -> Segmenter:
        super().train(mode)
        if self.fixed_norms:
            for layer in normalisation.batch_norms(self):
                layer.eval()
        return self

    def parameter_groups(self, lr: float, head_lr_factor: float) -> list[dict]:
        """Optimiser groups: the backbone at `lr`, the heads at `lr * head_lr_factor`; frozen parameters left out."""
        heads = [self.head] + ([self.aux_head] if self.aux_head is not None else [])
        body = [p for p in self.backbone.parameters() if p.requires_grad]
        head = [p for module in heads for p in module.parameters() if p.requires_grad]
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
