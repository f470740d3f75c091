"""CBST: class-balanced self-training in rounds ([CBST])."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from .base import EVERY, Method, MethodSettings, Option, Weight, torch, transfer

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch

# Confidences are counted by their log-odds log p/(1-p): bins of equal width there tell 1 - 1e-7
# from 1 - 1e-8, where bins of p (and p itself in fp32) do not. A round over any number of pixels
# takes constant memory.
BINS = 6000
LOWEST = -10.0
HIGHEST = 50.0


class CbstSettings(MethodSettings):
    rounds: int = Field(4, ge=1, le=100, description="self-training rounds over the run")
    first_portion: float = Field(
        0.2, gt=0, le=1, description="portion of each class's pixels labelled in round 1"
    )
    portion_step: float = Field(0.05, ge=0, le=1, description="added each round")
    last_portion: float = Field(0.5, gt=0, le=1, description="upper end of the portion")
    lambda_pseudo: Weight = Field(1.0, description="weight of the pseudo-label loss")


class Cbst(Method):
    """Each round freezes a copy of the network, finds a threshold t_k a class, and labels pixels
    with p_k / t_k >= 1.

    Pseudo-labels are those of the round's frozen network, computed when an image comes by: nothing
    is written.
    """

    Settings = CbstSettings
    # Its pseudo-labels leave pixels out, and how many is known part by part alone.
    supports = EVERY - {Option.ACCUMULATE}

    def __init__(self, model, settings, engine=None):
        super().__init__(model, settings, engine)
        self.labeller = model.twin().eval().requires_grad_(False)
        thresholds = torch.nn.Module()
        # The bin that holds t_k, and the share of that bin's pixels that still belong to the
        # portion.
        thresholds.register_buffer(
            "bins", torch.full((model.num_classes,), BINS, dtype=torch.int64)
        )
        thresholds.register_buffer("admitted", torch.zeros(model.num_classes))
        self.modules |= {"labeller": self.labeller, "thresholds": thresholds}

    def begin_iteration(
        self, iteration: int, total: int, target_images: Callable[[], Iterable[Tensor]]
    ) -> None:
        length = -(-total // self.settings.rounds)
        if iteration % length:
            return
        number = iteration // length
        portion = min(
            self.settings.first_portion + number * self.settings.portion_step,
            self.settings.last_portion,
        )
        self.labeller.load_state_dict(self.model.state_dict())
        self.find_thresholds(target_images(), portion)

    def predict(self, images: Tensor) -> Tensor:
        """Return logits `[B,K,h,w]` of the round's frozen network.

        Where batch norm follows the target, the labeller normalises by the images before it: in
        round 1 its running statistics are still those of the source, and thresholds found with them
        keep the errors for the whole run.
        """
        self.labeller.train(self.target_statistics)
        with torch.no_grad(), self.labeller.untracked_statistics(), self.autocast():
            return self.labeller(images).logits.float()

    def find_thresholds(self, images: Iterable[Tensor], portion: float) -> None:
        """Return, by class, the lowest confidence among the most confident `portion` of the pixels
        predicted as k, ties included.

        A class with so few pixels that its portion is less than one keeps t_k = 1: it is not
        labelled, as published.
        """
        bins = self.modules["thresholds"].bins
        admitted = self.modules["thresholds"].admitted
        # pixels by class and bin of confidence, [K,BINS]
        counts = torch.zeros(len(bins), BINS, dtype=torch.int64)
        # processes may have different numbers of images
        with self.labeller.own_statistics():
            for image in images:
                logits = self.predict(image[None].to(bins.device)).cpu()
                confidence, labels = log_odds(logits).max(dim=1)
                cells = (labels * BINS + to_bins(confidence)).flatten()
                counts += torch.bincount(cells, minlength=counts.numel()).view_as(counts)
        counts = self.process_group.sum(counts)
        # pixels in the first, the first two, ... bins from the most confident one
        from_top = counts.flip(1).cumsum(1)
        pixels = from_top[:, -1].to(transfer.widest(bins.device))
        wanted = (portion * pixels).floor().long()
        # bins from the top that are taken whole
        reached = (from_top < wanted[:, None]).sum(dim=1).clamp(max=BINS - 1)
        # a bin beyond the last one is t_k = 1
        thresholds = torch.where(wanted > 0, BINS - 1 - reached, torch.full_like(reached, BINS))
        # the threshold's bin may hold more pixels than are still wanted: a share of it is admitted
        here = counts.gather(1, thresholds.clamp(max=BINS - 1)[:, None])[:, 0]
        above = from_top.gather(1, reached[:, None])[:, 0] - here
        bins.copy_(thresholds)
        admitted.copy_((wanted - above).to(transfer.widest(bins.device)) / here.clamp(min=1))

    def pseudo_labels(self, images: Tensor) -> Tensor:
        """Return argmax of p_k / t_k `[B,h,w]` where it reaches 1, else 255. In a bin that the
        portion cuts, only its share of the pixels is labelled.
        """
        bins = self.modules["thresholds"].bins
        admitted = self.modules["thresholds"].admitted
        odds = log_odds(self.predict(images))
        # the log-odds of t_k: the lower edge of its bin
        edges = LOWEST + bins.to(transfer.widest(bins.device)) * ((HIGHEST - LOWEST) / BINS)
        log_probs = torch.nn.functional.logsigmoid(odds)
        log_thresholds = torch.nn.functional.logsigmoid(edges)
        # log p_k / t_k
        ratio = log_probs - log_thresholds.view(1, -1, 1, 1)
        labels = ratio.max(dim=1).indices
        # compared by bins, as they were counted: float rounding at an edge decides nothing
        bin_of_pixel = to_bins(odds.gather(1, labels[:, None])[:, 0])
        limit = bins[labels]
        is_admitted = even_pattern(labels.shape[-2:], labels.device) < admitted[labels]
        sure = (bin_of_pixel > limit) | ((bin_of_pixel == limit) & is_admitted)
        return torch.where(sure, labels, torch.full_like(labels, 255))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        _, terms = self.source_pass(batch)
        labels = self.pseudo_labels(batch.target)
        target = self.forward(batch.target, with_aux=False)
        pseudo = self.settings.lambda_pseudo * self.cross_entropy(
            target.logits, labels, by_class=False
        )
        self.backward(pseudo)
        return terms | {"pseudo": pseudo}


def log_odds(logits: Tensor) -> Tensor:
    """Return log p_k / (1 - p_k) `[B,K,h,w]` in float64, exact also where p_k rounds to 1."""
    logits = logits.to(transfer.widest(logits.device))
    others = []
    for k in range(logits.shape[1]):
        rest = torch.cat([logits[:, :k], logits[:, k + 1 :]], dim=1)
        others.append(torch.logsumexp(rest, dim=1))
    return logits - torch.stack(others, dim=1)


def to_bins(odds: Tensor) -> Tensor:
    return ((odds - LOWEST) * (BINS / (HIGHEST - LOWEST))).floor().long().clamp(0, BINS - 1)


def even_pattern(size: tuple[int, int], device) -> Tensor:
    """Return a number in [0,1) for each pixel `[h,w]`, evenly spread and the same for every image;
    it decides which of equal pixels are taken.
    """
    rows, columns = (torch.arange(n, dtype=transfer.widest(device), device=device) for n in size)
    return (rows[:, None] * 0.7548776662466927 + columns[None] * 0.5698402909980532) % 1.0


METHOD = Cbst
