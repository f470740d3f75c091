"""An EMA teacher's labels on source classes pasted over the target (ClassMix; [DACS])."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...runtime.random import StepStream, generator_of
from ..base import Method, MethodSettings, Weight, torch, transfer

if TYPE_CHECKING:
    from torch import Tensor

    from ...data.loader import Batch
    from ...models.segmenter import Segmenter
    from ..offline import OfflineData


Sampling = Literal["uniform", "class_balanced", "rare_class"]
# prior: the teacher counts as right on this many pixels of each class
PRIOR_PIXELS = 500.0


class SelfTrainingSettings(MethodSettings):
    lambda_st: Weight = Field(1.0, description="weight of the loss on mixed images")
    ema: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="largest EMA factor of the teacher; it begins as 1 - 1 / (iteration + 1)",
    )
    flip_teacher: bool = Field(
        False,
        description=(
            "whether the teacher's probabilities are the mean over the image and its mirror image"
        ),
    )
    confidence: float = Field(
        0.968, gt=0, lt=1, description="class probability above which a pseudo-label counts as sure"
    )
    mix_jitter: float = Field(
        0.25,
        ge=0,
        le=0.5,
        description=(
            "strength of the colour jitter of mixed images (brightness, contrast, saturation, hue)"
        ),
    )
    mix_jitter_kind: Literal["kornia", "torchvision"] = Field(
        "kornia",
        description=(
            "kornia: brightness adds, contrast multiplies pixels (DACS, DAFormer, HRDA, MIC);"
            " torchvision: factors around means, about half as strong"
        ),
    )
    mix_jitter_share: float = Field(
        0.8, ge=0, le=1, description="share of mixed images that are jittered"
    )
    mix_blur_share: float = Field(
        0.5, ge=0, le=1, description="share of mixed images that are blurred"
    )
    sampling: Sampling | None = Field(
        None,
        description=(
            "how source images are drawn while this method trains; null: as data.sampling says"
        ),
    )


class SelfTraining(Method):
    """The step of the class beside it (or the source loss alone), then cross-entropy on mixed
    images.
    """

    Settings = SelfTrainingSettings
    reads_border = True
    changes_images = True
    keeps_gradients = True
    # number of the teacher's first update: 1 makes it the student's copy, 2 the mean of both
    first_update = 1
    # the step beside it runs the target through the model; else mixed images stand for it
    sees_target_alone = True

    def __init__(self, model, settings, engine=None):
        super().__init__(model, settings, engine)
        self.modules["teacher"] = model.twin().without_drops().requires_grad_(False)
        self.iteration = 0
        self.share_of_batch: Tensor | None = None

    def before_training(self, data: OfflineData) -> None:
        """Prepare the counts of the teacher's labels against true ones, by class, when the target
        has some labels; they are saved with the run.
        """
        super().before_training(data)
        if data.samples.labelled_items:
            checked = torch.nn.Module()
            # given, right
            checked.register_buffer(
                "counts", torch.zeros(2, self.model.num_classes, device=data.device)
            )
            self.modules["checked"] = checked

    def begin_iteration(
        self, iteration: int, total: int, target_images: Callable[[], Iterable[Tensor]]
    ) -> None:
        self.iteration = iteration

    def end_iteration(self, iteration: int) -> None:
        """Update the teacher, teacher = a teacher + (1 - a) student; batch norm statistics are
        copied.
        """
        factor = min(1 - 1 / (iteration + self.first_update), self.settings.ema)
        teacher = self.modules["teacher"]
        with torch.no_grad():
            held = self.model.frozen
            pairs = [
                (slow, fast)
                for (name, fast), slow in zip(
                    self.model.named_parameters(), teacher.parameters(), strict=True
                )
                if name not in held
            ]
            # _foreach: all tensors in a few kernels
            slow, fast = map(list, zip(*pairs, strict=True))
            torch._foreach_lerp_(slow, fast, 1 - factor)
            torch._foreach_copy_([*teacher.buffers()], [*self.model.buffers()])

    def step(self, batch: Batch) -> dict[str, Tensor]:
        terms = super().step(batch)
        probs, guess = self.teach(batch.target, batch.target.shape[-2:])
        return terms | self.student_pass(
            batch, guess, self.sure_share(probs) * self.trust(guess) * self.inside(batch)
        )

    def labelled_step(self, batch: Batch) -> dict[str, Tensor]:
        """Run eq. 1 on labelled images, and check the teacher's labels against theirs for the steps
        that follow.
        """
        _, guess = self.teach(batch.labelled, batch.labelled_ids.shape[-2:])
        known = batch.labelled_ids != 255
        counts = torch.stack(
            [
                self.pixels_of(guess, where)
                for where in (known, known & (guess == batch.labelled_ids))
            ]
        )
        self.modules["checked"].counts += self.process_group.sum(counts)
        return super().labelled_step(batch)

    def pixels_of(self, guess: Tensor, where: Tensor) -> Tensor:
        """Count the pixels `where` by train id, `[K]` (without bincount, for which the host would
        wait for a GPU).
        """
        counts = torch.zeros(self.model.num_classes, dtype=torch.int64, device=guess.device)
        return counts.scatter_add_(0, guess.flatten(), where.flatten().long()).float()

    def trust(self, guess: Tensor) -> Tensor | float:
        """Return `[B,H,W]`: how often the teacher was right when it gave this class to a labelled
        image; 1 without labels.
        """
        if "checked" not in self.modules:
            return 1.0
        given, right = self.modules["checked"].counts
        return ((right + PRIOR_PIXELS) / (given + PRIOR_PIXELS))[guess]

    @staticmethod
    def inside(batch: Batch) -> Tensor | float:
        """Return `[B,H,W]`: 0 in the target's border (data.target.border), 1 elsewhere; 1 without a
        border.
        """
        return 1.0 if batch.target_border is None else batch.target_border.float()

    def student_pass(self, batch: Batch, guess: Tensor, sure: Tensor) -> dict[str, Tensor]:
        """Return the losses by the teacher's train ids `[B,H,W]` and its pixels' weights (which
        broadcast to `[B,H,W]`).
        """
        images, labels, weight, pasted = self.mix(batch, guess, sure)
        output = self.forward(
            self.augment(images), is_target=not self.sees_target_alone, with_aux=False
        )
        loss = self.settings.lambda_st * self.output_loss(output, labels, weight, by_class=pasted)
        self.backward(loss)
        return {"self_training": loss}

    def mix(
        self, batch: Batch, guess: Tensor, sure: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Paste half of each source image's classes over the target (ClassMix); return images,
        labels, pixel weights, and bool `[B,H,W]`, which pixels are pasted.

        Pasted pixels weigh 1, the teacher's as much as `sure` (the share of its pixels that are
        sure).
        """
        size = batch.target.shape[-2:]
        # plain nearest lies half a pixel off
        nearest = {"size": size, "mode": "nearest-exact"}
        source = torch.nn.functional.interpolate(batch.source.float(), **nearest).to(
            batch.source.dtype
        )
        truth = torch.nn.functional.interpolate(batch.labels[:, None].float(), **nearest)[
            :, 0
        ].long()
        pasted = torch.stack(
            [self.pasted_pixels(truth[i], self.place(i, len(truth))) for i in range(len(truth))]
        )
        images = torch.where(pasted[:, None], source, batch.target)
        return (
            images,
            torch.where(pasted, truth, guess),
            torch.where(pasted, torch.ones_like(sure), sure),
            pasted,
        )

    def sure_share(self, probs: Tensor) -> Tensor:
        """Return the weight of the teacher's pixels `[B,1,1]`: the share of its image's pixels that
        are sure.
        """
        return (probs > self.settings.confidence).float().mean(dim=(1, 2), keepdim=True)

    def sure_share_of_all(self, probs: Tensor) -> Tensor:
        """Return one weight for the batch of all processes, `[B,1,1]`: the share of its pixels
        that are sure.

        Where the batch is worked off in parts, the first of them asks the teacher about all.
        """
        number, parts = self.part
        if number == 0:
            of_parts = [probs]
            for part in self.whole.split(parts)[1:] if self.whole is not None else ():
                of_parts.append(self.teach(part.target, part.target.shape[-2:])[0])
            shares = [(one >= self.settings.confidence).float().mean() for one in of_parts]
            self.share_of_batch = self.process_group.mean(torch.stack(shares).mean())
        return self.share_of_batch.expand(len(probs), 1, 1)

    def augment(self, images: Tensor, stream: int = StepStream.MIXED_IMAGES) -> Tensor:
        """Apply colour jitter and blur to each image, drawn by (seed, stream, iteration,
        position).
        """
        s = self.settings
        how = {
            "jitter": s.mix_jitter,
            "jitter_share": s.mix_jitter_share,
            "blur_share": s.mix_blur_share,
        }
        return self.views(images, stream, self.iteration, kind=s.mix_jitter_kind, **how)

    def teach(self, images: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the teacher's confidence and train ids, `[B,H,W]`.

        Where no target image reaches the running statistics, it normalises by those of the batch
        (unless they are frozen).
        """
        teacher = self.modules["teacher"].train(not self.sees_target_alone)
        with torch.no_grad(), teacher.untracked_statistics():
            probs = self.probabilities(teacher, images, size)
            if self.settings.flip_teacher:
                probs = probs.add_(
                    self.probabilities(teacher, images.flip(-1), size).flip(-1)
                ).div_(2)
        return probs.max(dim=1)

    def probabilities(self, network: Segmenter, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Return class probabilities `[B,K,H,W]` at (H, W)."""
        with self.autocast():
            logits = network(images, with_aux=False).logits.float()
        return torch.softmax(self.upsample(logits, size), dim=1)

    def pasted_pixels(self, truth: Tensor, position: int) -> Tensor:
        """Return the pixels of half of the classes of `truth` `[H,W]`, drawn by (seed, iteration,
        position), so that a resumed run draws the same.

        The draw for every number of classes is made here, so that the host need not hear how many
        there are.
        """

        classes = self.model.num_classes
        # row n: which of n classes, in order, are pasted
        table = torch.zeros(classes + 1, 256, dtype=torch.bool)
        for n in range(1, classes + 1):
            order = torch.randperm(
                n,
                generator=generator_of(
                    self.seed, StepStream.PASTED_CLASSES, self.iteration, position
                ),
            )
            table[n, order[: (n + 1) // 2]] = True
        present = torch.zeros(256, dtype=torch.bool, device=truth.device).scatter_(
            0, truth.flatten(), True
        )
        present[255] = False
        rank = present.long().cumsum(0)  # from 1 on
        drawn = transfer.send(table, truth.device).index_select(0, rank[-1:])[0]
        return (present & drawn[(rank - 1).clamp(min=0)])[truth]
