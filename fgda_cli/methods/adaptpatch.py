"""AdaptPatch: target patches pulled to the modes of the source's label patches, beside
AdaptSegNet's game ([ADAPTPATCH]).

Its code was never released: sizes of the head and where its maps are averaged are our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from .adaptsegnet import AdaptSegNet, BinarySettings
from .base import EVERY, Option, Weight, torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.loader import Batch, PairedSamples
    from ..models.segmenter import Output
    from .offline import OfflineData

# source images that give the patches for the modes, evenly spread
IMAGES = 2000


class AdaptPatchSettings(BinarySettings):
    modes: int = Field(
        50, ge=2, le=255, description="number of modes of label patches, found by k-means"
    )
    patch: tuple[int, int] = Field((64, 32), description="width and height of a patch, pixels")
    lambda_mode: Weight = Field(0.01, description="weight of telling the source patches' modes")
    lambda_patch: Weight = Field(0.0005, description="adversarial weight of the target's patches")
    mode_only_share: float = Field(
        0.25, ge=0, le=1, description="share of the run without adversarial losses"
    )


class AdaptPatch(AdaptSegNet):
    """L = CE + lambda_mode CE(H(x_s), mode) + lambda_patch BCE(D(softmax H(x_t)), source) +
    AdaptSegNet's global game.
    """

    Settings = AdaptPatchSettings
    # How many patches have labels is known part by part alone.
    supports = EVERY - {Option.ACCUMULATE}

    def __init__(self, model, settings, engine=None):
        from .pieces.patches import PatchDiscriminator, PatchHead

        super().__init__(model, settings, engine)
        centroids = torch.nn.Module()
        centroids.register_buffer("values", torch.zeros(settings.modes, 4 * model.num_classes))
        self.discriminators["patch_discriminator"] = PatchDiscriminator(settings.modes)
        self.modules |= {
            **self.discriminators,
            "patch_head": PatchHead(model.num_classes, settings.modes),
            "centroids": centroids,
        }
        # the modes are learned first
        self.alone = False

    def before_training(self, data: OfflineData) -> None:
        """Find the modes of the source's label patches once, and keep them beside the run."""
        s = self.settings
        samples = data.samples
        facts = {
            "modes": s.modes,
            "patch": s.patch,
            "seed": self.seed,
            "source": data.domains()["source"],
        }
        self.modules["centroids"].values.copy_(
            data.tensor("patch-modes", facts, lambda: self.find_modes(samples))
        )

    def find_modes(self, samples: PairedSamples) -> Tensor:
        from .pieces.patches import histograms, k_means

        count = len(samples.source_items)
        points = []
        for index in torch.linspace(0, count - 1, min(IMAGES, count)).long().unique().tolist():
            grid, known = histograms(
                samples.source_label(index)[None], self.model.num_classes, self.settings.patch[::-1]
            )
            points.append(grid.movedim(1, -1)[known])
        return k_means(
            torch.cat(points), self.settings.modes, torch.Generator().manual_seed(self.seed)
        )

    def begin_iteration(
        self, iteration: int, total: int, target_images: Callable[[], Iterable[Tensor]]
    ) -> None:
        self.alone = iteration < self.settings.mode_only_share * total

    def head_parameters(self) -> list[nn.Parameter]:
        return [*self.modules["patch_head"].parameters()]

    def segmentation_losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Return the source's losses, including the loss on its patches' modes."""
        logits = self.patch_logits(output.logits, labels.shape[-2:])
        loss = self.cross_entropy(logits, self.modes_of(labels), by_class=False)
        return super().segmentation_losses(output, labels) | {
            "mode": self.settings.lambda_mode * loss
        }

    def modes_of(self, labels: Tensor) -> Tensor:
        """Return the nearest centroid of each patch `[B,U,V]`, 255 for patches without labels."""
        from .pieces.patches import histograms

        grid, known = histograms(labels, self.model.num_classes, self.settings.patch[::-1])
        nearest = torch.cdist(
            grid.movedim(1, -1), self.modules["centroids"].values.to(grid)
        ).argmin(dim=-1)
        return torch.where(known, nearest, 255)

    def patch_logits(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Return mode logits `[B,M,U,V]`, given class logits `[B,K,h,w]` of an image of (H, W)."""
        from .pieces.patches import grid_of

        with self.autocast():
            return self.modules["patch_head"](
                logits, grid_of(size, self.settings.patch[::-1])
            ).float()

    def discriminator_input(self, name: str, output: Output, size: tuple[int, int]) -> Tensor:
        if name != "patch_discriminator":
            return super().discriminator_input(name, output, size)
        return torch.softmax(self.patch_logits(output.logits, size), dim=1)

    def adversarial_weight(self, name: str) -> float:
        return (
            self.settings.lambda_patch
            if name == "patch_discriminator"
            else super().adversarial_weight(name)
        )

    def step(self, batch: Batch) -> dict[str, Tensor]:
        if self.alone:
            return self.source_pass(batch)[1]
        return super().step(batch)


METHOD = AdaptPatch
