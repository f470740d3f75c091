"""MIC: self-training whose student also reads masked images ([MIC]), with DAFormer's feature
distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ..runtime.random import StepStream
from .base import EVERY, Weight, torch, transfer
from .pieces.distillation import Distillation, DistillationSettings
from .pieces.self_training import Sampling, SelfTraining, SelfTrainingSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch
    from ..models.segmenter import Output
    from .offline import OfflineData

THINGS = (
    "traffic light",
    "traffic sign",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)


class MicSettings(SelfTrainingSettings, DistillationSettings):
    mix_jitter: float = Field(
        0.2, ge=0, le=0.5, description="strength of the colour jitter of mixed and masked images"
    )
    lambda_masked: Weight = Field(
        1.0, description="weight of the loss on masked target images; 0 turns it off"
    )
    mask_block: int = Field(64, ge=1, description="side of the squares that are masked, pixels")
    mask_ratio: float = Field(0.7, ge=0, lt=1, description="share of the squares that are masked")
    lambda_fd: Weight = Field(
        0.005,
        description="weight of the distance of things' features from those of the ImageNet encoder",
    )
    fd_things: tuple[str, ...] = Field(THINGS, description="names of the classes that are things")
    fd_share: float = Field(
        0.75, gt=0, le=1, description="share of a feature cell's pixels that its class must cover"
    )
    sampling: Sampling | None = Field(
        "rare_class", description="how source images are drawn; null: as data.sampling says"
    )


class Mic(SelfTraining, Distillation):
    """L = CE(x_s) + lambda_fd FD + mean w CE(mixed) + lambda_masked mean w CE(masked x_t), w the
    batch's share of sure pixels.

    Where it is asked for, plus lambda_distil times the distance from a foundation model's features.
    """

    Settings = MicSettings
    supports = EVERY
    sees_target_alone = False
    sure_share = SelfTraining.sure_share_of_all

    def __init__(self, model, settings, engine=None):
        super().__init__(model, settings, engine)
        # bool [K]. None: no features are held
        self.things: Tensor | None = None

    def before_training(self, data: OfflineData) -> None:
        """Load the frozen twin with the encoder's ImageNet weights, if it has any and some classes
        are things.
        """
        super().before_training(data)
        s = self.settings
        names = data.samples.source.classes.names
        things = torch.tensor([name in s.fd_things for name in names])
        if not s.lambda_fd:
            return
        twin = data.imagenet_encoder() if bool(things.any()) else None
        if twin is None:
            why = (
                "the encoder has no ImageNet weights"
                if bool(things.any())
                else "no class is one of method.fd_things"
            )
            data.reporter.decide(f"mic without feature distance: {why}")
            return
        self.references["imagenet"] = twin
        self.things = things.to(data.device)

    def source_pass(self, batch: Batch) -> tuple[Output, dict[str, Tensor]]:
        output = self.forward(batch.source, is_target=False)
        terms = self.segmentation_losses(output, batch.labels)
        if self.things is not None:
            terms["feature_distance"] = self.settings.lambda_fd * self.feature_distance(
                output, batch
            )
        self.backward(sum(terms.values()))
        return output, terms

    def feature_distance(self, output: Output, batch: Batch) -> Tensor:
        """Return the mean distance of the last stage from the twin's over the source's thing cells
        ([DAFormer] eq. 6-8).
        """
        with torch.no_grad(), self.autocast():
            reference = self.references["imagenet"](
                self.model.context(self.model.normalise(batch.source))
            )[-1].float()
        cells = thing_cells(
            batch.labels, reference.shape[-2:], self.things, share=self.settings.fd_share
        )
        count = cells.sum().float()
        if self.whole is not None:
            of_batch = thing_cells(
                self.whole.labels, reference.shape[-2:], self.things, share=self.settings.fd_share
            )
            count = of_batch.sum() / self.part[1]
        return (distances(output.stages[-1].float(), reference) * cells).sum() / self.mean_count(
            count
        )

    def student_pass(self, batch: Batch, guess: Tensor, sure: Tensor) -> dict[str, Tensor]:
        terms = super().student_pass(batch, guess, sure)
        if self.settings.lambda_masked:
            terms["masked"] = self.masked_pass(batch, guess, sure)
        return terms | self.distillation_pass(batch, self.iteration)

    def masked_pass(self, batch: Batch, guess: Tensor, sure: Tensor) -> Tensor:
        """Run forward and backward on masked images; a function of its own frees the output before
        the next pass.
        """
        output = self.forward(
            self.masked(batch.target), is_target=not self.sees_target_alone, with_aux=False
        )
        sure = sure.expand(guess.shape)
        loss = self.settings.lambda_masked * self.output_loss(output, guess, sure, by_class=False)
        self.backward(loss)
        return loss

    def masked(self, images: Tensor) -> Tensor:
        """Return images `[B,3,H,W]` in other colours with squares replaced by the encoder's mean
        colour; float 0-255.
        """
        s = self.settings
        normalise = self.model.normalise
        mean = normalise.mean.flip(1) if normalise.flip else normalise.mean
        draws = self.draws(StepStream.MASKS, self.iteration, len(images))
        kept = [
            block_mask(images.shape[-2:], s.mask_block, s.mask_ratio, generator=draw)
            for draw in draws
        ]
        changed = self.augment(images, stream=StepStream.MASKED_IMAGES).to(mean.dtype)
        return torch.where(transfer.send(torch.stack(kept)[:, None], images.device), changed, mean)


def block_mask(
    size: tuple[int, int], block: int, ratio: float, generator: torch.Generator
) -> Tensor:
    """Return bool `[H,W]`: of the squares of `block` pixels a side, those whose draw is above
    `ratio` stay ([MIC] eq. 3).
    """
    cells = tuple(max(1, round(side / block)) for side in size)
    return stay(torch.rand(cells, generator=generator), size, ratio)


def stay(draws: Tensor, size: tuple[int, int], ratio: float) -> Tensor:
    """Enlarge the mask of draws `[h,w]` in [0, 1) to (H, W) as published (nearest)."""
    kept = (draws > ratio).float()[None, None]
    return torch.nn.functional.interpolate(kept, size, mode="nearest")[0, 0].bool()


def thing_cells(train_ids: Tensor, size: tuple[int, int], things: Tensor, share: float) -> Tensor:
    """Return bool `[B,h,w]`: the cells of which one thing class holds at least `share` of the
    pixels; train_ids are `[B,H,W]`.

    `things` bool `[K]`.
    """
    classes = len(things)
    # 255 falls out
    one_hot = torch.nn.functional.one_hot(train_ids.long().clamp(max=classes), classes + 1)[
        ..., :classes
    ]
    shares = torch.nn.functional.adaptive_avg_pool2d(one_hot.movedim(-1, 1).float(), size)
    most, winner = shares.max(dim=1)
    return (most >= share) & things[winner]


def distances(features: Tensor, reference: Tensor) -> Tensor:
    """Return the Euclidean distance by cell, `[B,C,h,w]` twice -> `[B,h,w]`; its gradient is 0
    where both are equal.
    """
    squares = (features - reference).square().sum(dim=1)
    far = squares > 0
    return torch.where(
        far, torch.where(far, squares, torch.ones_like(squares)).sqrt(), torch.zeros_like(squares)
    )


METHOD = Mic
