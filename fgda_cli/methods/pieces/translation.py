"""Image translation by cycles ([CYCLEGAN], as [CYCADA] used it): networks, pool of old fakes,
training that can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...data.tensor_augment import draw
from ...models.weights import read_tensors, save_tensors
from ...runtime.random import StepStream, generator_of
from ...runtime.reporter import Reporter
from ...runtime.transfer import Readings, send
from ..optimizers import adam

# old fakes a discriminator is shown, half of the time
POOL = 50
STATE = "state.pth"


class TranslationSettings(NamedTuple):
    """`steps` of batch 1; the rates are constant for the first half, then fall to 0."""

    steps: int
    channels: int = 64
    blocks: int = 9
    crop: int = 400
    lr: float = 2e-4
    cycle: float = 10.0
    # weight of the identity loss, relative to `cycle`
    identity: float = 1.0
    save_every: int = 500


def residual(channels: int) -> nn.Module:
    return nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Conv2d(channels, channels, 3),
        nn.InstanceNorm2d(channels),
        nn.ReLU(inplace=True),
        nn.ReflectionPad2d(1),
        nn.Conv2d(channels, channels, 3),
        nn.InstanceNorm2d(channels),
    )


class Generator(nn.Module):
    """Images `[B,3,H,W]` in [-1, 1] to images of the same size: two strides down, residual blocks,
    two strides up.
    """

    def __init__(self, channels: int = 64, blocks: int = 9):
        super().__init__()
        c = channels
        self.enter = nn.Sequential(
            nn.ReflectionPad2d(3),
            nn.Conv2d(3, c, 7),
            nn.InstanceNorm2d(c),
            nn.ReLU(inplace=True),
            nn.Conv2d(c, 2 * c, 3, stride=2, padding=1),
            nn.InstanceNorm2d(2 * c),
            nn.ReLU(inplace=True),
            nn.Conv2d(2 * c, 4 * c, 3, stride=2, padding=1),
            nn.InstanceNorm2d(4 * c),
            nn.ReLU(inplace=True),
        )
        self.blocks = nn.ModuleList(residual(4 * c) for _ in range(blocks))
        self.leave = nn.Sequential(
            nn.ConvTranspose2d(4 * c, 2 * c, 3, stride=2, padding=1, output_padding=1),
            nn.InstanceNorm2d(2 * c),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * c, c, 3, stride=2, padding=1, output_padding=1),
            nn.InstanceNorm2d(c),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(3),
            nn.Conv2d(c, 3, 7),
            nn.Tanh(),
        )

    def forward(self, images: Tensor) -> Tensor:
        size = images.shape[-2:]
        # two layers of stride 2 need sides that 4 divides
        beyond = [-side % 4 for side in size]
        x = self.enter(nn.functional.pad(images, (0, beyond[1], 0, beyond[0]), mode="replicate"))
        for block in self.blocks:
            x = x + block(x)
        return self.leave(x)[..., : size[0], : size[1]]


class PatchGan(nn.Module):
    """Images `[B,3,H,W]` -> scores `[B,1,h,w]`, each of a patch of 70 pixels."""

    def __init__(self, channels: int = 64):
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        for inputs, outputs, stride in (
            (channels, 2 * channels, 2),
            (2 * channels, 4 * channels, 2),
            (4 * channels, 8 * channels, 1),
        ):
            layers += [
                nn.Conv2d(inputs, outputs, 4, stride=stride, padding=1),
                nn.InstanceNorm2d(outputs),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(8 * channels, 1, 4, stride=1, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def to_unit(image: Tensor) -> Tensor:
    """Convert uint8 RGB to float in [-1, 1]."""
    return image.float() / 127.5 - 1


def from_unit(image: Tensor) -> Tensor:
    return ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def real_and_fake_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return the least squares loss (mean (D(real) - 1)^2 + mean D(fake)^2) / 2."""
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


class Cycles(nn.Module):
    """Both translators and both discriminators; one step trains all four."""

    def __init__(
        self, settings: TranslationSettings, seed: int, device: torch.device = torch.device("cpu")
    ):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.to_target, self.to_source = (
                Generator(settings.channels, settings.blocks) for _ in range(2)
            )
            self.judge_target, self.judge_source = (PatchGan(settings.channels) for _ in range(2))
            for layer in self.modules():
                if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
                    nn.init.normal_(layer.weight, 0.0, 0.02)
                    nn.init.zeros_(layer.bias)
        self.settings = settings
        self.pools = {"target": [], "source": []}
        self.to(device)
        makers = [*self.to_target.parameters(), *self.to_source.parameters()]
        judges = [*self.judge_target.parameters(), *self.judge_source.parameters()]
        self.optimizers = [
            adam(group, lr=settings.lr, betas=(0.5, 0.999)) for group in (makers, judges)
        ]

    def step(
        self, source: Tensor, target: Tensor, generator: torch.Generator, factor: float
    ) -> dict[str, Tensor]:
        """Update the generators, then the discriminators, once; images are `[1,3,h,w]` in [-1,
        1].
        """
        s = self.settings
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = s.lr * factor
        fake_target = self.to_target(source)
        fake_source = self.to_source(target)
        fooled = (self.judge_target(fake_target) - 1).square().mean() + (
            self.judge_source(fake_source) - 1
        ).square().mean()
        back = (self.to_source(fake_target) - source).abs().mean() + (
            self.to_target(fake_source) - target
        ).abs().mean()
        loss = fooled + s.cycle * back
        if s.identity:
            same = (self.to_target(target) - target).abs().mean() + (
                self.to_source(source) - source
            ).abs().mean()
            loss = loss + s.identity * s.cycle * same
        self.update(0, loss)
        shown = [
            self.old_or_new(name, fake.detach(), generator)
            for name, fake in (("target", fake_target), ("source", fake_source))
        ]
        judged = real_and_fake_loss(self.judge_target(target), self.judge_target(shown[0]))
        judged = judged + real_and_fake_loss(self.judge_source(source), self.judge_source(shown[1]))
        self.update(1, judged)
        return {"makers": loss.detach(), "judges": judged.detach()}

    def update(self, index: int, loss: Tensor) -> None:
        self.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[index].step()

    def old_or_new(self, name: str, fake: Tensor, generator: torch.Generator) -> Tensor:
        """Return the fake, or, half of the time, an older one, which it replaces."""
        pool = self.pools[name]
        if len(pool) < POOL:
            pool.append(fake)
            return fake
        if draw(generator) < 0.5:
            return fake
        index = int(torch.randint(POOL, (), generator=generator))
        old = pool[index]
        pool[index] = fake
        return old

    def state(self) -> dict:
        return {
            "networks": self.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "pools": self.pools,
        }

    def load(self, state: dict, device: torch.device) -> None:
        self.load_state_dict(state["networks"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.pools = {
            name: [fake.to(device) for fake in fakes] for name, fakes in state["pools"].items()
        }


# a random uint8 RGB image [3,H,W]
Draw = Callable[[torch.Generator], Tensor]


def train(
    folder: Path,
    settings: TranslationSettings,
    seed: int,
    source: Draw,
    target: Draw,
    device: torch.device,
    reporter: Reporter,
) -> Cycles:
    """Train to the last step from the state in `folder`; the images and crops of step i are a pure
    function of (seed, i).
    """
    cycles = Cycles(settings, seed, device)
    first = 0
    readings = Readings()
    if (folder / STATE).is_file():
        saved = read_tensors(folder / STATE)
        cycles.load(saved["cycles"], device)
        first = saved["step"]
    with reporter.progress("train translation", settings.steps, first) as advance:
        for step in range(first, settings.steps):
            generator = generator_of(seed, StepStream.TRANSLATION, step)
            images = [
                to_unit(send(cropped(read(generator), settings.crop, generator), device))[None]
                for read in (source, target)
            ]
            factor = min(1.0, 2 * (settings.steps - step) / settings.steps)
            terms = cycles.step(*images, generator, factor)
            reading = readings.put(step, [terms["makers"]])
            advance(1, f"makers {reading[1][0]:.2f}" if reading else "")
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                save_tensors(folder / STATE, {"step": step + 1, "cycles": cycles.state()})
    return cycles


def cropped(image: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return a random square `[3,size,size]`, or as much as the image has, mirrored half of the
    time.
    """
    full_height, full_width = image.shape[-2:]
    height = min(size, full_height)
    width = min(size, full_width)
    top = int(torch.randint(full_height - height + 1, (), generator=generator))
    left = int(torch.randint(full_width - width + 1, (), generator=generator))
    crop = image[:, top : top + height, left : left + width]
    return crop.flip(-1) if draw(generator) < 0.5 else crop
