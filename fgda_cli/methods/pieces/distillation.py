"""Features of the student's last stage held to those of a frozen foundation model ([VFMUDA++])."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ...runtime.errors import UsageError
from ...runtime.random import StepStream
from ..base import Engine, Method, MethodSettings, Weight, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ...data.loader import Batch
    from ...data.store import AnyDataset
    from ...models.segmenter import Segmenter
    from ..offline import OfflineData

# Published as "weak": brightness, contrast, saturation, hue; in nine of ten images, without blur.
WEAK = {
    "jitter": (32 / 255, 0.5, 0.5, 0.05),
    "jitter_share": 0.9,
    "blur_share": 0.0,
    "kind": "torchvision",
}


class DistillationSettings(MethodSettings):
    lambda_distil_source: Weight = Field(
        0.0,
        description=(
            "weight of the distance of source features from the foundation model's; 0 for both: no"
            " such model"
        ),
    )
    lambda_distil_target: Weight = Field(0.0, description="the same for target features")
    distil_cosine: float = Field(
        0.9,
        ge=0,
        le=1,
        description="share of the cosine distance in it; the rest is smooth L1 (published: 0.9)",
    )
    distil_model: str = Field(
        "timm:vit_large_patch14_reg4_dinov2",
        description="the foundation model, of timm (published: DINOv2's ViT-L with registers)",
    )
    distil_weights: str = Field(
        "imagenet",
        description=(
            "its weights: imagenet (the model's published ones), package, a file, or none (random,"
            " for tests)"
        ),
    )
    distil_scale: float = Field(
        406 / 1024,
        gt=0,
        le=2,
        description=(
            "size at which it reads a crop, relative to the crop (published: 406 of 1024 pixels)"
        ),
    )


class Distillation(Method):
    """Adds a pass over each domain, in weak colours, whose last stage is compared with the
    foundation's through a small head.
    """

    Settings = DistillationSettings

    def __init__(
        self, model: Segmenter, settings: DistillationSettings, engine: Engine | None = None
    ):
        super().__init__(model, settings, engine)
        if self.distils(settings):
            from ...models.foundation import FeatureHead, width_of

            self.modules["feature_head"] = FeatureHead(
                model.backbone.channels[-1], width_of(settings.distil_model)
            )

    @staticmethod
    def distils(settings: DistillationSettings) -> bool:
        return bool(settings.lambda_distil_source or settings.lambda_distil_target)

    @classmethod
    def check(
        cls,
        settings: DistillationSettings,
        model: Segmenter,
        source: AnyDataset | None,
        target: AnyDataset | None,
    ) -> None:
        """Check the foundation model. Raises UsageError for a model that timm lacks, FgdaError for
        weights that cannot be had.
        """
        super().check(settings, model, source, target=target)
        if not cls.distils(settings):
            return
        from ...models.foundation import file_of, width_of

        try:
            width_of(settings.distil_model)
            if settings.distil_weights != "none":
                file_of(settings.distil_model, settings.distil_weights)
        except ValueError as error:
            raise UsageError(f"methods.{settings.name}.distil_model: {error}") from None

    def before_training(self, data: OfflineData) -> None:
        """Load the frozen model: a reference, never saved."""
        super().before_training(data)
        if self.distils(self.settings):
            from ...models.foundation import load_foundation

            s = self.settings
            self.references["foundation"] = load_foundation(
                s.distil_model, s.distil_weights, s.distil_scale, seed=self.seed
            )

    def head_parameters(self) -> list[nn.Parameter]:
        own = self.modules["feature_head"].parameters() if "feature_head" in self.modules else ()
        return [*super().head_parameters(), *own]

    def distillation_pass(self, batch: Batch, iteration: int) -> dict[str, Tensor]:
        """Run a forward and a backward pass for each domain whose weight is not 0, and return the
        losses.
        """
        s = self.settings
        terms = {}
        for domain, images, weight, stream in (
            ("source", batch.source, s.lambda_distil_source, StepStream.DISTILLED_SOURCE),
            ("target", batch.target, s.lambda_distil_target, StepStream.DISTILLED_TARGET),
        ):
            if weight:
                loss = weight * self.gap(
                    images, self.views(images, stream, iteration, **WEAK), domain == "target"
                )
                self.backward(loss)
                terms[f"distil_{domain}"] = loss
        return terms

    def gap(self, images: Tensor, view: Tensor, is_target: bool) -> Tensor:
        """Return the distance of the view's features from the foundation's features of the
        unchanged images.
        """
        from ...models.foundation import feature_gap

        with torch.no_grad(), self.autocast():
            reference = self.references["foundation"](images).float()
        features = self.forward(view, is_target=is_target, with_aux=False).stages[-1]
        with self.autocast():
            features = self.modules["feature_head"](features, tuple(reference.shape[-2:]))
        return feature_gap(features.float(), reference, self.settings.distil_cosine)
