"""The base of all methods: settings, networks, and `step(batch) -> loss terms`. Importing this
loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from ..runtime.distributed import ProcessGroup
from ..runtime.lazy import LazyModule
from ..runtime.random import generator_of
from ..settings import Section
from .optimizers import Recipe, Scheduled, adam

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .. import losses
    from ..data.loader import Batch
    from ..data.store import AnyDataset
    from ..models.segmenter import Output, Segmenter
    from ..runtime import transfer
    from .offline import OfflineData
# imported at first use, so that the command line answers fast
else:
    torch = LazyModule("torch")
    losses = LazyModule("fgda_cli.losses")
    transfer = LazyModule("fgda_cli.runtime.transfer")

Weight = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Option(str, Enum):
    """What a preset may ask of any method. A method says which of these it supports; all others are
    refused.
    """

    # two resolutions: the logits are not the head's of the features
    DETAIL = "model.detail"
    AUXILIARY = "model.multi_level"  # a second head
    # cross-entropy on labelled target images beside the method's step
    LABELLED = "data.target.labelled"
    # a step in parts, equal to the step of the whole batch
    ACCUMULATE = "accumulate"
    TRAINED_NORMS = "batch_norm: statistics, train or target"
    MIXED_NORMS = "batch_norm: mixed"
    PROCESSES = "several processes"
    REDUCED = "precision bf16 or fp16"
    # a part of the encoder is trained, and the rest is not kept in last.pth
    TUNED = "model.tune: lora or frozen"


EVERY = frozenset(Option)

# share of the detail window's own loss at two resolutions
DETAIL_SHARE = 0.1


class MethodSettings(Section):
    name: str = Field(description="name of the method")
    aux_seg: Weight = Field(0.1, description="weight of the auxiliary head's segmentation loss")
    seg_temperature: float = Field(
        1.0, gt=0, description="temperature of the source's cross-entropy during adaptation"
    )
    lambda_labelled: Weight = Field(
        1.0,
        description="weight of the cross-entropy on labelled target images (data.target.labelled)",
    )


def unscaled(loss: Tensor) -> Tensor:
    return loss


@dataclass(frozen=True)
class Engine:
    """Values that the training loop gives to a method."""

    # the run's seed: every draw of a method comes from (seed, stream, iteration, position)
    seed: int = 0
    # batch norm's running statistics follow the target alone
    target_statistics: bool = False
    # weights of cross-entropy `[256]` by train id, on the device
    class_weights: Tensor | None = None
    autocast: Callable = nullcontext
    # loss scaling (fp16); the trainer adds a part's share of the step
    scale: Callable[[Tensor], Tensor] = unscaled
    # the processes that share each batch
    process_group: ProcessGroup = ProcessGroup()


class Method:
    """Base of all methods: supervised training on the source.

    A subclass adds losses in `step`, and networks in `self.modules` (saved, moved, trained and
    resumed with the run). Discriminators go into `self.discriminators` too and get an Adam of their
    own. Networks that only give targets (an ImageNet backbone, a former teacher) go into
    `self.references`: moved, never trained, never saved.

    The trainer calls a method in this order::

        method.check(settings, model, source, target)    # before anything is written
        method = Method(model, settings, engine)
        method.before_training(data)                     # at every start, before a resume
        optimizers = method.optimizers(recipe)
        for iteration in range(total):
            method.begin_iteration(iteration, total, target_images)
            for part in batch.split(accumulate):         # one, unless `accumulate` says more
                terms = method.step(part)                # leaves gradients in `.grad`
                terms |= method.labelled_step(part)      # if the target has labels
            ...                                          # gradients are averaged, optimisers step
            method.end_iteration(iteration)
            method.inference_state_dict()                # when a checkpoint or validation is due

    Names say what runs backward: `step` and `*_pass` do, `*_loss` and `*_losses` return losses that
    somebody else sums and runs backward once.
    """

    Settings = MethodSettings
    supports: frozenset[Option] = frozenset()  # refused by default
    # the method sets batch norm itself, once; adapt.batch_norm is not used
    fixed_norms = False
    uses_target = True
    # False: trained from a checkpoint, no source is opened
    uses_source = True
    # signals without labels pick the best, the start among them, unless run.select says labels
    guarded = False
    # a step gives the network images in other colours, or put together of several
    changes_images = False
    # replaces adapt.iterations; None: as the preset says
    iterations: int | None = None
    # zeroed between steps, not freed: less memory where the peak is not in the first pass of a step
    keeps_gradients = False
    # whether batches carry the target's border (data.target.border)
    reads_border: bool = False

    def __init__(self, model: Segmenter, settings: Any, engine: Engine | None = None):
        self.model = model
        self.settings = settings
        engine = engine or Engine()
        self.modules: dict[str, nn.Module] = {}
        self.discriminators: dict[str, nn.Module] = {}
        self.references: dict[str, nn.Module] = {}
        self.seed = engine.seed
        self.target_statistics = engine.target_statistics
        self.class_weights = engine.class_weights
        self.autocast = engine.autocast
        self.scale = engine.scale
        self.process_group = engine.process_group
        # Which of how many parts of the step's images is worked off, the part and all of them; the
        # trainer counts.
        self.part = (0, 1)
        self.images: Batch | None = None
        self.whole: Batch | None = None

    # hooks, which a method may override

    @classmethod
    def check(
        cls, settings: Any, model: Segmenter, source: AnyDataset | None, target: AnyDataset | None
    ) -> None:
        """Raise UsageError for a network (on the meta device) or data that this method cannot
        train, before any work.
        """

    def before_training(self, data: OfflineData) -> None:
        """Prepare what training needs (offline steps, class statistics); called at every start,
        before the state is resumed.

        `data.product` keeps what takes long to compute, and computes it again only when what it
        depends on has changed.
        """

    def optimizers(self, recipe: Recipe) -> dict[str, Scheduled]:
        """Return optimisers by name: "segmentation" is the preset's on the model, each
        discriminator has an Adam of its own.
        """
        groups = self.segmentation_groups(recipe.lr, recipe.optim.head_lr_factor)
        optimizers = {"segmentation": recipe.make(groups, self.model)}
        for name, discriminator in self.discriminators.items():
            optimizers[name] = adam(
                discriminator.parameters(), lr=self.settings.discriminator_lr, betas=(0.9, 0.99)
            )
        return {
            name: Scheduled(optimizer, recipe.schedule) for name, optimizer in optimizers.items()
        }

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Run one iteration forward and backward, leave gradients in `.grad`, and return the loss
        terms.
        """
        _, terms = self.source_pass(batch)
        return terms

    def labelled_step(self, batch: Batch) -> dict[str, Tensor]:
        """Run eq. 1 on labelled target images, where there are any; called after `step`."""
        output = self.forward(batch.labelled)
        loss = self.settings.lambda_labelled * sum(
            Method.segmentation_losses(self, output, batch.labelled_ids).values()
        )
        self.backward(loss)
        return {"labelled": loss}

    def begin_iteration(
        self, iteration: int, total: int, target_images: Callable[[], Iterable[Tensor]]
    ) -> None:
        """Prepare an iteration; `target_images()` yields this process's share of the unlabelled
        training images.

        Each image comes once, uint8 `[3,H,W]`, to one of the processes.
        """

    def end_iteration(self, iteration: int) -> None:
        """Finish an iteration; called after the optimisers' steps."""

    def inference_state_dict(self) -> dict[str, Tensor]:
        """Return the state of the segmentation model that is evaluated and saved."""
        return self.model.state_dict()

    def head_parameters(self) -> list[nn.Parameter]:
        """Return parameters of the method's own networks that learn with the model's heads, at
        their rate.
        """
        return []

    def segmentation_groups(self, lr: float, head_lr_factor: float) -> list[dict]:
        """Return the optimiser groups of the model, backbone and heads, and of what learns with the
        heads.
        """
        backbone, heads = self.model.parameter_groups(lr, head_lr_factor)
        return [backbone, heads | {"params": [*heads["params"], *self.head_parameters()]}]

    # helpers

    def forward(self, images: Tensor, is_target: bool = True, with_aux: bool = True) -> Output:
        """Return the model's output with fp32 logits; with `target_statistics`, source images do
        not update statistics. `with_aux` False: the auxiliary head is not run.
        """
        keep = self.target_statistics and not is_target
        with self.model.untracked_statistics() if keep else nullcontext(), self.autocast():
            output = self.model(images, with_aux)
        detail = (
            None
            if output.detail is None
            else output.detail._replace(logits=output.detail.logits.float())
        )
        aux = None if output.aux_logits is None else output.aux_logits.float()
        return output._replace(logits=output.logits.float(), aux_logits=aux, detail=detail)

    @property
    def align_corners(self) -> bool:
        """Return whether the model's maps are enlarged with aligned corners."""
        return self.model.align_corners

    def upsample(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the model's logits at (H, W)."""
        return losses.upsample(logits, size, self.align_corners)

    def backward(self, loss: Tensor) -> None:
        self.scale(loss).backward()

    def cross_entropy(
        self,
        logits: Tensor,
        labels: Tensor,
        weight: Tensor | None = None,
        by_class: bool | Tensor = True,
        **how: Any,
    ) -> Tensor:
        """Return eq. 1, its mean over the labelled pixels of all processes (times their number,
        because gradients are averaged).

        `weight` `[B,H,W]` multiplies each pixel's loss, and so does the weight of its class where
        there are any: of true labels alone. `by_class` False: labels that are no classes, or own
        guesses; a bool `[B,H,W]`: true where a pixel's label is true.
        """
        pixels = self.labelled_pixels(labels)
        if by_class is not False and self.class_weights is not None:
            of_class = self.class_weights[labels.long()]
            if by_class is not True:
                of_class = torch.where(by_class, of_class, torch.ones_like(of_class))
            weight = of_class if weight is None else weight * of_class
        return losses.segmentation_loss(
            logits, labels, pixels=pixels, weight=weight, align_corners=self.align_corners, **how
        )

    def labelled_pixels(self, labels: Tensor) -> Tensor:
        """Return how many pixels of a part of the batch are labelled, in the mean over its parts
        and processes, so that losses of parts add up to that of the whole.
        """
        of_whole = labels
        if self.whole is not None and self.images is not None:
            if labels is self.images.labels:
                of_whole = self.whole.labels
            elif labels is self.images.labelled_ids:
                of_whole = self.whole.labelled_ids
        count = (of_whole != 255).sum()
        if of_whole is not labels:
            count = count / self.part[1]
        return self.mean_count(count)

    def mean_count(self, count: Tensor) -> Tensor:
        """Return a count of this part in the mean over all processes, at least one over all
        processes and parts.
        """
        return self.process_group.mean(count).clamp(min=1 / self.process_group.size / self.part[1])

    def output_loss(
        self,
        output: Output,
        labels: Tensor,
        weight: Tensor | None = None,
        by_class: bool | Tensor = True,
        **how: Any,
    ) -> Tensor:
        """Return `cross_entropy` of an output; at two resolutions 0.9 of it plus 0.1 of the
        window's own ([HRDA] eq. 9).
        """
        loss = self.cross_entropy(output.logits, labels, weight, by_class=by_class, **how)
        if output.detail is None:
            return loss
        if not isinstance(by_class, bool):
            by_class = output.detail.crop(by_class)
        crop_weight = None if weight is None else output.detail.crop(weight.expand(labels.shape))
        detail = self.cross_entropy(
            output.detail.logits, output.detail.crop(labels), crop_weight, by_class=by_class, **how
        )
        return (1 - DETAIL_SHARE) * loss + DETAIL_SHARE * detail

    def place(self, index: int, count: int) -> int:
        """Return the position of image `index`, of this process's `count`, in the batch of all
        processes.
        """
        number, parts = self.part
        return (self.process_group.rank * parts + number) * count + index

    def draws(self, stream: int, iteration: int, count: int) -> list[torch.Generator]:
        """Return a generator for each of this process's `count` images, from (seed, stream,
        iteration, position).
        """
        return [
            generator_of(self.seed, stream, iteration, self.place(index, count))
            for index in range(count)
        ]

    def views(self, images: Tensor, stream: int, iteration: int, **how: Any) -> Tensor:
        """Return images `[B,3,H,W]` in other colours and blurred, as `tensor_augment.strong_view`
        does `how`.
        """
        from ..data.tensor_augment import strong_view

        draws = self.draws(stream, iteration, len(images))
        return torch.stack(
            [strong_view(image, draw, **how) for image, draw in zip(images, draws, strict=True)]
        )

    def mean_of_all(self, values: Tensor) -> Tensor:
        """Return the mean over all processes of a mean over this process's images. The gradient
        reaches this process's part, because gradients are averaged after the step.
        """
        return self.process_group.mean(values.detach()).to(values.dtype) + (
            values - values.detach()
        )

    def segmentation_losses(self, output: Output, labels: Tensor) -> dict[str, Tensor]:
        """Return eq. 1 on the main head and, weighted, on the auxiliary one."""
        temperature = self.settings.seg_temperature
        terms = {"seg": self.output_loss(output, labels, temperature=temperature)}
        if output.aux_logits is not None:
            aux = self.cross_entropy(output.aux_logits, labels, temperature=temperature)
            terms["seg_aux"] = self.settings.aux_seg * aux
        return terms

    def source_pass(self, batch: Batch) -> tuple[Output, dict[str, Tensor]]:
        """Run the source forward and its segmentation loss backward; return output and loss
        terms.
        """
        output = self.forward(batch.source, is_target=False)
        terms = self.segmentation_losses(output, batch.labels)
        self.backward(sum(terms.values()))
        return output, terms
