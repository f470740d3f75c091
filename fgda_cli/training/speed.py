"""Measurement of a training step on this machine, before there is any data."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..data.loader import Batch
from ..methods.registry import method_class
from ..models import checkpoint
from ..models.segmenter import Segmenter
from ..runtime.devices import Precision, make_precision, pick_device
from ..runtime.distributed import ProcessGroup
from ..runtime.system import median_seconds
from ..settings import Domain, Preset, Stage
from .components import make_state, prepare_method
from .state import TrainState

# (preset, stage, method, number of classes, device) -> seconds
Measure = Callable[[Preset, Stage, str, int, str], float]
WARM_UP = 1
MEASURED = 3


def seconds_a_step(
    preset: Preset, stage: Stage, name: str, num_classes: int, device: str = "auto"
) -> float:
    """Return the median seconds of a method's step and its optimisers on random images; reading
    data is not counted.

    For methods that make no products before training.
    """
    torch_device = pick_device(device)
    with torch.random.fork_rng([torch_device] if torch_device.type == "cuda" else []):
        model = checkpoint.build_model(preset.model, num_classes)
        precision = make_precision(preset.run.precision, torch_device, model=model)
        state = prepared_state(preset, stage, name, model=model, precision=precision)
        batch = random_batch(preset, stage, name, num_classes=num_classes).to(torch_device)

        def step(number: int) -> None:
            step_once(state, batch, number, length=stage.iterations)
            if torch_device.type == "cuda":
                torch.cuda.synchronize(torch_device)

        for number in range(WARM_UP):
            step(number)
        return median_seconds(lambda number: step(WARM_UP + number), MEASURED)


def prepared_state(
    preset: Preset, stage: Stage, name: str, model: Segmenter, precision: Precision
) -> TrainState:
    """Return a method and its optimisers around a network, as a stage begins with them."""
    cls = method_class(name)
    if name == "source-only":
        preset = preset.model_copy(update={"method": preset.source_only})
    method = prepare_method(
        cls,
        model,
        preset,
        stage=stage,
        precision=precision,
        group=ProcessGroup(),
        fresh_heads=True,
    )
    return make_state(method, preset, stage, precision=precision)


def minutes_of_stages(
    preset: Preset, num_classes: int, device: str = "auto", measure: Measure = seconds_a_step
) -> dict[str, float]:
    """Return the minutes of the steps of source training and adaptation on this machine, by
    stage.
    """
    minutes = {}
    for stage, name in (("pretrain", "source-only"), ("adapt", preset.method.name)):
        settings = getattr(preset, stage)
        seconds = measure(preset, settings, name, num_classes, device)
        minutes[stage] = settings.iterations * seconds / 60
    return minutes


def random_batch(preset: Preset, stage: Stage, name: str, num_classes: int) -> Batch:
    """Return random images and labels of the preset's sizes, one part's share of a batch."""

    def images(domain: Domain) -> torch.Tensor:
        width, height = domain.crop or domain.size
        count = max(1, stage.batch_size // stage.accumulate)
        return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)

    source = images(preset.data.source)
    target = images(preset.data.target)
    labels = torch.randint(0, num_classes, (len(source), *source.shape[2:]), dtype=torch.uint8)
    if not method_class(name).uses_target:
        return Batch(source, labels, None)
    return Batch(source, labels, target)


def step_once(state: TrainState, batch: Batch, number: int, length: int) -> None:
    """Run a method's step and its optimisers on a batch."""
    method = state.method
    state.clear_gradients()
    method.model.begin_iteration(method.seed, number)
    method.begin_iteration(number, length, lambda: iter(()))
    method.step(batch)
    for optimizer in state.with_gradients():
        optimizer.step()
    method.end_iteration(number)
