"""FDA: the source in the target's low frequencies, a robust entropy of the target, and rounds of
self-training ([FDA]).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from .base import EVERY, Method, MethodSettings, Weight, losses, torch, transfer
from .offline import OfflineData, network_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch
    from ..data.store import AnyDataset

# bins of confidence from 0 to 1
BINS = 10_000


class FdaSettings(MethodSettings):
    beta: float = Field(
        0.01,
        gt=0,
        le=0.5,
        description="share of the image's smaller side whose frequencies are swapped",
    )
    lambda_ent: Weight = Field(0.005, description="weight of the target's entropy")
    power: float = Field(2.0, gt=0, le=10, description="power of the squared entropy (Charbonnier)")
    labels_from: tuple[str, ...] = Field(
        (),
        description=(
            "checkpoints whose mean prediction gives pseudo-labels (published: three betas)"
        ),
    )
    lambda_pseudo: Weight = Field(1.0, description="weight of the loss on these pseudo-labels")
    portion: float = Field(
        0.66,
        ge=0,
        lt=1,
        description="share of a class's pixels that is left out, the least confident ones",
    )
    ceiling: float = Field(
        0.9, gt=0, le=1, description="class probability above which a pixel is always labelled"
    )


class Fda(Method):
    """L = CE(x_s in the target's style) + lambda mean (E^2 + 1e-8)^power, E at the logits'
    resolution, and, in rounds of self-training, CE on the target's pixels that the mean of other
    networks is sure of.
    """

    Settings = FdaSettings
    changes_images = True
    supports = EVERY

    def __init__(self, model, settings, engine=None):
        super().__init__(model, settings, engine)
        if settings.labels_from:
            self.modules["thresholds"] = torch.nn.Module()
            self.modules["thresholds"].register_buffer("values", torch.ones(model.num_classes))

    @classmethod
    def check(cls, settings: FdaSettings, model, source: AnyDataset, target: AnyDataset) -> None:
        """Raise FgdaError or UsageError for networks that cannot label this source's classes."""
        if settings.labels_from:
            from ..models.checkpoint import refuse_same

            paths = [Path(path) for path in settings.labels_from]
            refuse_same((path, network_of(path, source.classes)) for path in paths)

    def before_training(self, data: OfflineData) -> None:
        """Load the networks that label, and find each class's threshold once; it is kept beside the
        run.
        """
        s = self.settings
        if not s.labels_from:
            return
        networks = [data.network(Path(path)) for path in s.labels_from]
        self.references |= {
            f"labeller{number}": network for number, (network, _) in enumerate(networks)
        }
        facts = {
            "by": [digest for _, digest in networks],
            "portion": s.portion,
            "ceiling": s.ceiling,
            "target": data.domains()["target"],
        }
        self.modules["thresholds"].values.copy_(
            data.tensor("thresholds", facts, lambda: self.find_thresholds(data))
        )

    def find_thresholds(self, data: OfflineData) -> Tensor:
        counts = torch.zeros(self.model.num_classes, BINS, dtype=torch.int64)
        with data.reporter.progress(
            "thresholds of the target's labels", len(data.samples.target_items)
        ) as advance:
            for images in data.samples.target_batches():
                confidence, labels = (
                    values.cpu().flatten() for values in self.guess(images.to(data.device))
                )
                cells = labels * BINS + (confidence * BINS).long().clamp(max=BINS - 1)
                counts += torch.bincount(cells, minlength=counts.numel()).view_as(counts)
                advance(len(images))
        return thresholds(counts, self.settings.portion, self.settings.ceiling)

    def guess(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return confidence and train ids `[B,H,W]` of the labelling networks' mean
        probabilities.
        """
        with torch.no_grad(), self.autocast():
            maps = [
                (network(images).logits.float(), network.align_corners)
                for network in self.references.values()
            ]
            size = images.shape[-2:]
            probs = sum(
                losses.upsample(torch.softmax(logits, dim=1), size, align) for logits, align in maps
            ) / len(maps)
        return probs.max(dim=1)

    def pseudo_labels(self, images: Tensor) -> Tensor:
        confidence, labels = self.guess(images)
        return torch.where(
            confidence >= self.modules["thresholds"].values[labels],
            labels,
            torch.full_like(labels, 255),
        )

    def step(self, batch: Batch) -> dict[str, Tensor]:
        _, terms = self.source_pass(batch._replace(source=self.in_target_style(batch)))
        target = self.forward(batch.target, with_aux=False)
        losses_of_target = {
            "entropy": (
                self.settings.lambda_ent
                * losses.charbonnier_entropy(target.logits, self.settings.power)
            )
        }
        if self.settings.labels_from:
            labels = self.pseudo_labels(batch.target)
            losses_of_target["pseudo"] = self.settings.lambda_pseudo * self.cross_entropy(
                target.logits, labels, by_class=False
            )
        self.backward(sum(losses_of_target.values()))
        return terms | losses_of_target

    def in_target_style(self, batch: Batch) -> Tensor:
        """Give each source image the amplitude of the target image beside it; raw float values
        0-255, not clipped.
        """

        source = batch.source.float()
        target = batch.target.float()
        # The published code needs images of one size. The target is resized, so that beta keeps
        # its meaning.
        if source.shape[-2:] != target.shape[-2:]:
            how = {"mode": "bilinear", "align_corners": False, "antialias": True}
            target = torch.nn.functional.interpolate(target, source.shape[-2:], **how)
        return low_frequencies_of(source, target, self.settings.beta)


def thresholds(counts: Tensor, portion: float, ceiling: float) -> Tensor:
    """Return, by class, the confidence at rank round(portion n) of its n pixels in rising order, at
    most `ceiling`; counts are `[K,BINS]`.

    A class that is never guessed keeps the ceiling.
    """
    rising = counts.cumsum(1)
    pixels = rising[:, -1:]
    rank = (portion * pixels.to(transfer.widest(counts.device))).round().long()
    # bins whose pixels all rank before the wanted one
    cells = (rising <= rank).sum(dim=1).clamp(max=BINS - 1)
    found = torch.where(pixels[:, 0] > 0, cells.float() / BINS, torch.ones(len(counts)))
    return found.clamp(max=ceiling)


def low_frequencies_of(source: Tensor, target: Tensor, share: float) -> Tensor:
    """Return the source with the target's amplitude where |u|, |v| <= b = floor(share * min(H, W)),
    and the source's phase everywhere.

    Float images `[B,3,H,W]` of one size, in and out; values may leave 0 to 255, as published. The
    window is symmetric (the public torch code's is not, and leaves an imaginary part).
    """
    if source.shape != target.shape:
        raise ValueError(
            f"source {tuple(source.shape)} and target {tuple(target.shape)} differ in shape"
        )
    height, width = source.shape[-2:]
    reach = int(share * min(height, width))
    rows = torch.fft.fftfreq(height, 1 / height, device=source.device).abs() <= reach
    columns = torch.fft.fftfreq(width, 1 / width, device=source.device).abs() <= reach
    low = rows[:, None] & columns[None]
    ours = torch.fft.fft2(source)
    theirs = torch.fft.fft2(target)
    amplitude = torch.where(low, theirs.abs(), ours.abs())
    return torch.fft.ifft2(torch.polar(amplitude, ours.angle())).real


METHOD = Fda
