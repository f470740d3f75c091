"""CyCADA: source images translated to the target's look, then alignment of the class scores
([CYCADA]).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ..runtime.errors import UsageError
from ..runtime.random import StepStream
from .base import EVERY, Method, MethodSettings, Option, Weight, torch, transfer
from .optimizers import Recipe, Scheduled, sgd

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch
    from ..data.store import AnyDataset
    from ..models.segmenter import Segmenter
    from .offline import OfflineData

# steps over which the discriminator's accuracy is counted
WINDOW = 100


class CycadaSettings(MethodSettings):
    translation_factor: float = Field(
        1.0, ge=0, le=100, description="translation steps an iteration of adaptation; 0: none"
    )
    translation_channels: int = Field(
        64, ge=1, description="channels of the first layer of the translation networks"
    )
    translation_blocks: int = Field(9, ge=0, description="residual blocks of its generators")
    translation_crop: int = Field(400, ge=32, description="side of its training crops, pixels")
    identity: Weight = Field(
        1.0, description="weight of leaving an image of its own domain alone, times the cycle's 10"
    )
    lambda_adv: Weight = Field(0.1, description="adversarial weight")
    gate: float = Field(
        0.6,
        ge=0,
        le=1,
        description="the network plays only while the discriminator is right more often",
    )
    discriminator_lr: float = Field(
        1e-5, gt=0, description="learning rate of the discriminator (SGD, momentum 0.99)"
    )
    dropout: float = Field(
        0.5, ge=0, lt=1, description="share of the discriminator's channels that is dropped"
    )


class Cycada(Method):
    """L = CE(translated x_s) + lambda_adv CE(D(C(x_t)), source), while D is right on more than
    `gate` of its pixels.
    """

    Settings = CycadaSettings
    # The gate follows the discriminator's accuracy on the whole batch.
    supports = EVERY - {Option.ACCUMULATE}

    def __init__(self, model, settings, engine=None):
        super().__init__(model, settings, engine)
        layers = (
            torch.nn.Conv2d(model.num_classes, 512, 1),
            torch.nn.Conv2d(512, 256, 1),
            torch.nn.Conv2d(256, 2, 1),
        )
        self.modules["discriminator"] = torch.nn.ModuleList(layers)
        record = torch.nn.Module()
        record.register_buffer("accuracy", torch.zeros(WINDOW))
        self.modules["record"] = record
        self.iteration = 0

    @classmethod
    def check(
        cls, settings: CycadaSettings, model: Segmenter, source: AnyDataset, target: AnyDataset
    ) -> None:
        """Raise UsageError for several joined source data sets, which cannot be translated."""
        from ..data.store import PreparedDataset

        if settings.translation_factor and not isinstance(source, PreparedDataset):
            raise UsageError("one source data set can be translated, not several joined ones")

    def before_training(self, data: OfflineData) -> None:
        """Translate the source by cycles that are trained here, once; the result is kept in the
        run's folder.
        """
        s = self.settings
        if not s.translation_factor:
            return
        look = s.model_dump(
            include={"translation_channels", "translation_blocks", "translation_crop", "identity"}
        )
        facts = {"steps": self.steps(data), "seed": self.seed, **look, **data.domains()}
        folder = data.product("translated", facts, lambda place: self.translate(data, place))
        data.use_source(folder / "source")

    def steps(self, data: OfflineData) -> int:
        return max(1, round(self.settings.translation_factor * data.iterations))

    def translate(self, data: OfflineData, folder: Path) -> None:
        from .pieces.translation import TranslationSettings, from_unit, to_unit, train

        s = self.settings
        samples = data.samples
        wanted = TranslationSettings(
            self.steps(data),
            s.translation_channels,
            s.translation_blocks,
            crop=s.translation_crop,
            identity=s.identity,
        )
        cycles = train(
            folder,
            wanted,
            self.seed,
            source=samples.any_source,
            target=samples.any_target,
            device=data.device,
            reporter=data.reporter,
        )

        def change(image: Tensor) -> Tensor:
            with torch.no_grad():
                return from_unit(cycles.to_target(to_unit(image)[None].to(data.device)))[0].cpu()

        data.derive_source(folder / "source", change)

    def begin_iteration(self, iteration, total, target_images) -> None:
        self.iteration = iteration

    def optimizers(self, recipe: Recipe) -> dict[str, Scheduled]:
        parameters = self.modules["discriminator"].parameters()
        discriminator = sgd(
            parameters,
            lr=self.settings.discriminator_lr,
            momentum=0.99,
            weight_decay=recipe.optim.weight_decay,
        )
        return super().optimizers(recipe) | {
            "discriminator": Scheduled(discriminator, recipe.schedule)
        }

    def step(self, batch: Batch) -> dict[str, Tensor]:
        source, terms = self.source_pass(batch)
        target = self.forward(batch.target, with_aux=False)
        leaf = target.logits.detach().requires_grad_()
        on_target = self.domain_logits(leaf, 1)
        on_source = self.domain_logits(source.logits.detach(), 0)
        adversarial = self.settings.lambda_adv * domain_loss(on_target, 0)
        gate = self.gate().to(adversarial)
        # a GPU is not asked: a closed gate stops the gradient there
        if gate.device.type != "cpu" or bool(gate):
            (grad,) = torch.autograd.grad(self.scale(adversarial), leaf, retain_graph=True)
            torch.autograd.backward(target.logits, grad * gate)
        terms["adv"] = (adversarial * gate).detach()
        terms["disc"] = domain_loss(on_source, 0) + domain_loss(on_target, 1)
        self.scale(terms["disc"]).backward(inputs=list(self.modules["discriminator"].parameters()))
        self.count(on_source, on_target)
        return terms

    def gate(self) -> Tensor:
        """Return one truth value: whether the discriminator was right often enough over the last
        steps.
        """
        accuracy = self.modules["record"].accuracy
        seen = min(self.iteration, WINDOW)
        return (
            accuracy[:seen].mean() > self.settings.gate
            if seen
            else torch.zeros_like(accuracy[0], dtype=torch.bool)
        )

    def count(self, on_source: Tensor, on_target: Tensor) -> None:
        right = 0.5 * (
            (on_source.argmax(1) == 0).float().mean() + (on_target.argmax(1) == 1).float().mean()
        )
        self.modules["record"].accuracy[self.iteration % WINDOW] = self.process_group.mean(right)

    def domain_logits(self, logits: Tensor, stream: int) -> Tensor:
        """Return domain logits `[B,2,h,w]` (source, target), given class logits; dropped channels
        are drawn by (seed, iteration, position).
        """
        first, second, last = self.modules["discriminator"]
        with self.autocast():
            x = logits
            for layer, convolution in enumerate((first, second)):
                x = convolution(x)
                draws = self.draws(
                    StepStream.CYCADA_DROPOUT + 2 * layer + stream, self.iteration, len(x)
                )
                kept = (
                    torch.stack([torch.rand(x.shape[1], generator=draw) for draw in draws])
                    >= self.settings.dropout
                )
                x = torch.relu(
                    x * transfer.send(kept / (1 - self.settings.dropout), x)[:, :, None, None]
                )
            return last(x).float()


def domain_loss(domain_logits: Tensor, domain: int) -> Tensor:
    """Return the mean cross-entropy of every pixel against one domain: 0 is the source, 1 the
    target.
    """
    labels = torch.full(
        (len(domain_logits), *domain_logits.shape[2:]), domain, device=domain_logits.device
    )
    return torch.nn.functional.cross_entropy(domain_logits, labels)


METHOD = Cycada
