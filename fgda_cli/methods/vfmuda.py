"""VFM-UDA++: masked consistency on a foundation model, whose frozen twin's features are distilled
([VFMUDA++]).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..runtime.random import StepStream
from .base import Weight
from .mic import Mic, MicSettings
from .pieces.distillation import WEAK

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch
    from ..models.segmenter import Output

# Published as "strong": of the source in the supervised pass alone.
STRONG = {
    "jitter": (0.8, 0.8, 0.8, 0.4),
    "jitter_share": 0.8,
    "grey_share": 0.1,
    "blur": (0.15, 3.0),
    "kind": "torchvision",
}


class VfmudaSettings(MicSettings):
    lambda_fd: Weight = Field(
        0.0, description="weight of DAFormer's feature distance, which this method replaces"
    )
    lambda_distil_source: Weight = Field(
        0.1, description="weight of the distance of source features from the foundation model's"
    )
    lambda_distil_target: Weight = Field(0.1, description="the same for target features")
    flip_teacher: bool = Field(
        True,
        description=(
            "whether the teacher's probabilities are the mean over the image and its mirror image"
        ),
    )
    mask_block: int = Field(
        57,
        ge=1,
        description=(
            "side of the squares that are masked, pixels (published: 64 after the image is enlarged"
            " by 35/32)"
        ),
    )
    mix_jitter_kind: Literal["kornia", "torchvision"] = Field(
        "torchvision", description="how mixed images are jittered"
    )
    strong_source: bool = Field(
        True, description="whether the supervised pass sees the source in strong colours"
    )


class Vfmuda(Mic):
    """L = CE(strong x_s) + mean w CE(mixed) + mean w CE(masked x_t) + lambda_distil times the
    distance from the foundation's features in both domains."""

    Settings = VfmudaSettings
    first_update = 2

    def source_pass(self, batch: Batch) -> tuple[Output, dict[str, Tensor]]:
        if self.settings.strong_source:
            batch = batch._replace(
                source=self.views(batch.source, StepStream.STRONG_SOURCE, self.iteration, **STRONG)
            )
        return super().source_pass(batch)

    def mix(
        self, batch: Batch, guess: Tensor, sure: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Paste the unchanged source over the target in weak colours."""
        weak = self.views(batch.target, StepStream.WEAK_TARGET, self.iteration, **WEAK)
        return super().mix(batch._replace(target=weak), guess, sure)


METHOD = Vfmuda
