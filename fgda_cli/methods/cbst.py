"""CBST: class-balanced self-training in rounds ([CBST])."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from .base import Method, MethodSettings, Weight, torch

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch

BINS = 1000  # confidence histogram, so that a round over any number of pixels takes constant memory


class CbstSettings(MethodSettings):
    rounds: int = Field(5, ge=1, le=100, description="self-training rounds over the run")
    first_portion: float = Field(0.2, gt=0, le=1, description="portion of each class's pixels labelled in round 1")
    portion_step: float = Field(0.05, ge=0, le=1, description="added each round")
    last_portion: float = Field(0.5, gt=0, le=1, description="upper end of the portion")
    lambda_pseudo: Weight = Field(1.0, description="weight of the pseudo-label loss")


class Cbst(Method):
    """Each round freezes a copy of the network, finds a threshold t_k a class, and labels pixels with p_k / t_k >= 1.

    Pseudo-labels are those of the round's frozen network, computed when an image comes by: nothing is written.
    """

    Settings = CbstSettings

    def __init__(self, model, settings):
        super().__init__(model, settings)
        self.labeller = copy.deepcopy(model).eval().requires_grad_(False)
        thresholds = torch.nn.Module()
        thresholds.register_buffer("values", torch.ones(model.num_classes))
        self.modules |= {"labeller": self.labeller, "thresholds": thresholds}

    def begin_iteration(self, iteration: int, total: int, target_images: Callable[[], Iterable[Tensor]]) -> None:
        length = -(-total // self.settings.rounds)
        if iteration % length:
            return
        number = iteration // length
        portion = min(self.settings.first_portion + number * self.settings.portion_step, self.settings.last_portion)
        self.labeller.load_state_dict(self.model.state_dict())
        self.modules["thresholds"].values.copy_(self.find_thresholds(target_images(), portion))

    def predict(self, images: Tensor) -> Tensor:
        """Probabilities `[B,K,h,w]` of the round's frozen network.

        Where batch norm follows the target, the labeller normalises by the images before it: in round 1 its running
        statistics are still those of the source, and thresholds found with them keep the errors for the whole run.
        """
        self.labeller.train(self.target_statistics)
        with torch.no_grad(), self.labeller.untracked_statistics(), self.autocast():
            return torch.softmax(self.labeller(images).logits.float(), dim=1)

    def find_thresholds(self, images: Iterable[Tensor], portion: float) -> Tensor:
        """t_k `[K]`: the confidence at `portion` of the pixels predicted as k; 1 for a class never predicted."""
        values = self.modules["thresholds"].values
        counts = torch.zeros(len(values), BINS, dtype=torch.int64)
        with self.labeller.own_statistics():  # processes may have different numbers of images
            for image in images:
                confidence, labels = self.predict(image[None].to(values.device)).cpu().max(dim=1)
                bins = (confidence * BINS).long().clamp(max=BINS - 1)
                counts += torch.bincount((labels * BINS + bins).flatten(), minlength=counts.numel()).view_as(counts)
        counts = self.process_group.sum(counts.to(values.device)).cpu()
        from_top = counts.flip(1).cumsum(1)
        wanted = (portion * from_top[:, -1:]).ceil().clamp(min=1).long()
        place = (from_top < wanted).sum(dim=1).clamp(max=BINS - 1)
        thresholds = 1 - (place + 1) / BINS
        return torch.where(from_top[:, -1] > 0, thresholds.clamp(min=1 / BINS), torch.ones(len(values))).to(values.device)

    def pseudo_labels(self, images: Tensor) -> Tensor:
        """argmax of p_k / t_k where it reaches 1, else 255; `[B,h,w]`."""
        ratio, labels = (self.predict(images) / self.modules["thresholds"].values.view(1, -1, 1, 1)).max(dim=1)
        return torch.where(ratio >= 1, labels, torch.full_like(labels, 255))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        _, terms = self.source_pass(batch)
        labels = self.pseudo_labels(batch.target)
        target = self.forward(batch.target)
        pseudo = self.settings.lambda_pseudo * self.cross_entropy(target.logits, labels)
        self.backward(pseudo)
        return terms | {"pseudo": pseudo}
