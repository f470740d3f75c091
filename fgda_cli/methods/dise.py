"""DISE: structure and texture taken apart; the source, translated by them, is trained on too
([DISE]).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..runtime.lazy import LazyModule
from .base import EVERY, Method, MethodSettings, Option, Weight, losses, torch
from .optimizers import Recipe, Scheduled, adam

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.loader import Batch
    from ..models.segmenter import Output
    from .offline import OfflineData

translation = LazyModule("fgda_cli.methods.pieces.translation")

# iterations between updates of the image discriminators
IMAGE_EVERY = 5


class DiseSettings(MethodSettings):
    lambda_main: Weight = Field(0.001, description="adversarial weight of the class maps")
    lambda_aux: Weight = Field(
        0.0002, description="adversarial weight of the auxiliary level's class maps"
    )
    lambda_translated: Weight = Field(
        1.0, description="weight of the segmentation loss on translated source images"
    )
    lambda_reconstruction: Weight = Field(
        0.5, description="perceptual weight of an image against itself put together again"
    )
    lambda_image: Weight = Field(
        0.01, description="least-squares adversarial weight of translations"
    )
    lambda_translation: Weight = Field(
        0.05, description="perceptual weight of a translation against structure and texture"
    )
    perception: Literal["own", "vgg19"] = Field(
        "own", description="network whose features compare images: the start's, or VGG-19"
    )
    decoder_width: int = Field(256, ge=8, description="channels of the decoder")
    image_width: int = Field(
        64,
        ge=1,
        description="channels of the first layer of texture encoders and image discriminators",
    )
    reconstruction_lr: float = Field(
        1e-3, gt=0, description="learning rate of texture encoders and decoder (Adam)"
    )
    discriminator_lr: float = Field(
        1e-4, gt=0, description="learning rate of all discriminators (Adam)"
    )


class Dise(Method):
    """The segmentation network is the structure encoder.

    Images are compared by the features of the network as it began, frozen, or by VGG-19's (as
    published; a download of 548 MB).
    """

    Settings = DiseSettings
    changes_images = True
    # Its decoders normalise by the batch.
    supports = EVERY - {Option.ACCUMULATE}

    def __init__(self, model, settings, engine=None):
        from .pieces import reconstruction as nets

        super().__init__(model, settings, engine)
        self.makers = {
            "source_texture": nets.TextureEncoder(model.backbone.channels[0], settings.image_width),
            "target_texture": nets.TextureEncoder(model.backbone.channels[0], settings.image_width),
            "decoder": nets.Decoder(model.backbone.channels[-1], settings.decoder_width),
        }
        self.judges = {"main": nets.OutputDiscriminator(model.num_classes)}
        if model.aux_head is not None:
            self.judges["aux"] = nets.OutputDiscriminator(model.num_classes)
        self.image_judges = {
            name: nets.ImageDiscriminator(settings.image_width)
            for name in ("source_image", "target_image")
        }
        self.modules |= {**self.makers, **self.judges, **self.image_judges}
        if settings.perception == "own":
            self.modules["perception"] = model.twin().without_drops().requires_grad_(False)
            self.modules["perception"].set_batch_norm("frozen")
        self.iteration = 0

    def before_training(self, data: OfflineData) -> None:
        if self.settings.perception == "vgg19":
            from ..models.perception import load_vgg19, vgg19_file

            # one process downloads for all
            data.process_group.first_decides(lambda: int(vgg19_file().is_file()))
            self.references["perception"] = load_vgg19()

    def begin_iteration(self, iteration, total, target_images) -> None:
        self.iteration = iteration

    def optimizers(self, recipe: Recipe) -> dict[str, Scheduled]:
        def made(modules: dict, rate: float, betas: tuple[float, float]) -> Scheduled:
            parameters = [p for module in modules.values() for p in module.parameters()]
            return Scheduled(adam(parameters, lr=rate, betas=betas), recipe.schedule)

        s = self.settings
        return super().optimizers(recipe) | {
            "reconstruction": made(self.makers, s.reconstruction_lr, (0.5, 0.999)),
            "judges": made(self.judges, s.discriminator_lr, (0.9, 0.99)),
            "image_judges": made(self.image_judges, s.discriminator_lr, (0.5, 0.999)),
        }

    def step(self, batch: Batch) -> dict[str, Tensor]:
        source = self.forward(batch.source, is_target=False)
        target = self.forward(batch.target)
        images = self.put_together(source, target, batch)
        with fixed(*self.judges.values(), *self.image_judges.values()):
            terms = self.segmentation_losses(source, batch.labels) | self.maker_losses(
                images, target, batch
            )
            self.backward(sum(terms.values()))
        translated = self.forward(to_pixels(images["s2t"].detach()), is_target=False)
        terms_of_translated = self.segmentation_losses(translated, batch.labels)
        again = {
            f"{name}_translated": self.settings.lambda_translated * term
            for name, term in terms_of_translated.items()
        }
        self.backward(sum(again.values()))
        disc = self.judge_losses(images, source, target, batch=batch)
        self.backward(sum(disc.values()))
        return terms | again | disc

    def put_together(self, source: Output, target: Output, batch: Batch) -> dict[str, Tensor]:
        """Return images in [-1, 1]: source and target reconstructed (`s2s`, `t2t`), and each in the
        other's texture (`s2t`, `t2s`).
        """
        sizes = {"s": batch.source.shape[-2:], "t": batch.target.shape[-2:]}
        structure = {"s": source.stages[-1], "t": target.stages[-1]}
        with self.autocast():
            texture = {
                "s": self.makers["source_texture"](source.stages[0]),
                "t": self.makers["target_texture"](target.stages[0]),
            }
            return {
                f"{one}2{two}": (
                    self.makers["decoder"](
                        structure[one], texture[two], two == "t", sizes[one]
                    ).float()
                )
                for one in "st"
                for two in "st"
            }

    def maker_losses(
        self, images: dict[str, Tensor], target: Output, batch: Batch
    ) -> dict[str, Tensor]:
        """Return the weighted losses of the networks that make images and class maps."""
        s = self.settings
        size = batch.target.shape[-2:]
        seen = {"s": self.perceive(batch.source), "t": self.perceive(batch.target)}
        made = {name: self.perceive(to_pixels(image)) for name, image in images.items()}
        terms = {
            "reconstruction": (
                s.lambda_reconstruction
                * sum(reconstruction_loss(made[f"{d}2{d}"], seen[d]) for d in "st")
            )
        }
        terms["translation"] = s.lambda_translation * sum(
            translation_loss(made[f"{one}2{two}"], seen[one], seen[two])
            for one, two in ("st", "ts")
        )
        fooled = (self.look("target_image", images["s2t"]) - 1).square().mean()
        fooled = fooled + (self.look("source_image", images["t2s"]) - 1).square().mean()
        terms["image_adv"] = s.lambda_image * fooled
        for name in self.judges:
            weight = s.lambda_main if name == "main" else s.lambda_aux
            # 1: the source
            terms[f"{name}_adv"] = weight * losses.binary_domain_loss(
                self.judged(name, target, size), "target"
            )
        return terms

    def judge_losses(
        self, images: dict[str, Tensor], source: Output, target: Output, batch: Batch
    ) -> dict[str, Tensor]:
        """Return the discriminators' losses; the image discriminators' every fifth iteration."""
        terms = {}
        for name in self.judges:
            on_source = losses.binary_domain_loss(
                self.judged(name, source, batch.source.shape[-2:], detached=True), "target"
            )
            on_target = losses.binary_domain_loss(
                self.judged(name, target, batch.target.shape[-2:], detached=True), "source"
            )
            terms[f"{name}_disc"] = 0.5 * (on_source + on_target)
        if self.iteration % IMAGE_EVERY == 0:
            for name, real, fake in (
                ("target_image", batch.target, "s2t"),
                ("source_image", batch.source, "t2s"),
            ):
                as_real = self.look(name, translation.to_unit(real))
                as_fake = self.look(name, images[fake].detach())
                terms[f"{name}_disc"] = translation.real_and_fake_loss(as_real, as_fake)
        return terms

    def judged(
        self, name: str, output: Output, size: tuple[int, int], detached: bool = False
    ) -> Tensor:
        logits = output.logits if name == "main" else output.aux_logits
        maps = torch.softmax(self.upsample(logits.detach() if detached else logits, size), dim=1)
        with self.autocast():
            return self.judges[name](maps).float()

    def look(self, name: str, images: Tensor) -> Tensor:
        with self.autocast():
            return self.image_judges[name](images).float()

    def perceive(self, images: Tensor) -> list[Tensor]:
        """Return features of an image 0-255, fine ones first."""
        with self.autocast():
            if self.settings.perception == "vgg19":
                features = self.references["perception"](images)
            else:
                own = self.modules["perception"]
                features = own.backbone(own.normalise(images))
        return [stage.float() for stage in features]


def to_pixels(images: Tensor) -> Tensor:
    """Convert float images from [-1, 1] to 0-255."""
    return (images + 1) * 127.5


def reconstruction_loss(made: list[Tensor], seen: list[Tensor]) -> Tensor:
    """Return the weighted mean absolute differences of features: the coarsest weighs 1, the one
    before 1/4, each finer one half of that.
    """
    weights = [*(0.5 ** (len(made) - number) for number in range(len(made) - 1)), 1.0]
    return sum(
        weight * (one - two.detach()).abs().mean()
        for weight, one, two in zip(weights, made, seen, strict=True)
    )


def translation_loss(made: list[Tensor], structure: list[Tensor], texture: list[Tensor]) -> Tensor:
    """Compare the last two stages (weights 1/4, 1) with the structure's image, and channel means of
    the other stages with the texture's.
    """
    deep = sum(
        weight * (made[stage] - structure[stage].detach()).abs().mean()
        for stage, weight in ((-2, 0.25), (-1, 1.0))
    )
    # which colours and textures there are, not where: means over all places
    pairs = zip(made[:-2], texture[:-2], strict=True)
    shallow = sum(
        (one.mean(dim=(2, 3)) - two.detach().mean(dim=(2, 3))).abs().mean() for one, two in pairs
    )
    return deep + shallow


@contextmanager
def fixed(*modules) -> Iterator[None]:
    """Give these modules no gradient inside."""
    parameters = [p for module in modules for p in module.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


METHOD = Dise
