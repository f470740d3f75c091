"""Put together and run a stage: data, model, method, optimisers, trainer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..config.schema import Preset, Stage
from ..data.loader import Augmentation, PairedSamples
from ..data.store import PreparedDataset, open_dataset
from ..inference.evaluate import evaluate_model
from ..methods.base import Method
from ..methods.registry import method_class
from ..models import checkpoint
from ..models.weights import load_backbone
from ..runtime.devices import make_precision, pick_device
from ..runtime.distributed import ProcessGroup, join
from ..runtime.errors import FgdaError, UsageError
from ..runtime.reporter import Reporter
from .run_folder import RunFolder
from .state import TrainState
from .trainer import Trainer

NEW, STARTED, FINISHED = range(3)  # what a run folder may hold


@dataclass(frozen=True)
class Job:
    """Where a stage runs."""

    preset: Preset
    data_root: Path
    out: Path | None = None
    device: str = "auto"
    fresh: bool = False
    reporter: Reporter = Reporter()

    def default_folder(self, stage: str, method: str | None = None) -> Path:
        parts = [stage] + ([method] if method else []) + [f"seed{self.preset.run.seed}"]
        return Path("runs") / self.preset.name / "-".join(parts)


def pretrain(job: Job) -> Path:
    """Source-only training; returns final.pth."""
    method = method_class("source-only")
    identity = {"stage": "pretrain", "method": "source-only", "init": None}
    preset = job.preset.model_copy(update={"method": method.Settings(name="source-only")})
    return _run(job, preset, preset.pretrain, identity, method, None, job.default_folder("pretrain"))


def adapt(job: Job, init: Path | None) -> Path:
    """Adaptation from `init`, else from the newest finished pretrain of the preset; returns final.pth."""
    name = job.preset.method.name
    if init is None:
        init = newest_pretrain(job)
        job.reporter.say(f"starting from {init}")
    identity = {"stage": "adapt", "method": name, "init": str(init)}
    return _run(job, job.preset, job.preset.adapt, identity, method_class(name), init, job.default_folder("adapt", name))


def newest_pretrain(job: Job) -> Path:
    """Raises FgdaError when none is finished."""
    same_seed = job.default_folder("pretrain") / "checkpoints" / "final.pth"
    if same_seed.is_file():
        return same_seed
    found = list((Path("runs") / job.preset.name).glob("pretrain-seed*/checkpoints/final.pth"))
    if not found:
        raise FgdaError(f"no finished pretrain of preset '{job.preset.name}': run `fgda pretrain` first, or give --init CKPT")
    return max(found, key=lambda path: path.stat().st_mtime)


def _run(job: Job, preset: Preset, stage: Stage, identity: dict, method: type[Method], init: Path | None, folder: Path) -> Path:
    run = RunFolder(job.out or folder)
    source = open_dataset(job.data_root, preset.data.source.dataset)
    target = open_dataset(job.data_root, preset.data.target.dataset) if method.uses_target else None
    device = pick_device(job.device)
    process_group = join(device)
    _check_shares(stage, identity["stage"], process_group.size)

    def open_run() -> int:
        run.open(preset, identity, job.fresh)
        return FINISHED if run.final.is_file() else STARTED if run.last.is_file() else NEW

    found = process_group.first_decides(open_run, device)
    if found == FINISHED:
        job.reporter.say(f"{run.folder} is finished already (--fresh starts over)")
        return run.final
    resumed = checkpoint.load(run.last) if found == STARTED else None
    if resumed is not None and "train" not in resumed:
        raise FgdaError(f"{run.last} cannot be resumed (it holds weights alone): use --fresh to start over")
    torch.manual_seed(preset.run.seed)
    precision = make_precision(resumed["train"]["precision"] if resumed else preset.run.precision, device, process_group)
    model = checkpoint.build_model(preset.model, len(source.classes))
    if resumed is None:
        _initialise(model, preset, init)
    if stage.batch_norm == "frozen":
        model.freeze_batch_norm()
    elif process_group.size > 1:
        model.share_batch_norm(process_group)
    if preset.model.checkpoint_activations:
        _checkpoint_activations(model, stage)
    state = make_state(method(model, preset.method), preset, stage, precision)
    if preset.run.compile:
        model.backbone.compile()
    state.method.process_group = process_group
    if resumed is not None:
        state.load_state_dict(resumed["train"])
        job.reporter.say(f"resuming {run.folder} at iteration {state.iteration} of {stage.iterations}")
    samples = make_samples(preset, source, target, method)
    header = {"stage": identity["stage"], "method": identity["method"], "classes": source.classes.to_json()}
    validate = make_validation(job, preset, precision, process_group)
    Trainer(state, samples, stage, preset, run, header, validate, job.reporter, process_group).train()
    return run.final


def _check_shares(stage: Stage, name: str, processes: int) -> None:
    """Raises UsageError when a batch cannot be split evenly: a run is the same on any number of processes."""
    if stage.batch_size % processes:
        raise UsageError(
            f"{name}.batch_size is {stage.batch_size}, over all processes: it must be a multiple of their number, {processes}\n"
            f"e.g. --set {name}.batch_size={processes}"
        )


def _checkpoint_activations(model, stage: Stage) -> None:
    """Raises UsageError where a second forward would count batch norm's statistics twice, or the backbone cannot."""
    if stage.batch_norm != "frozen":
        raise UsageError("model.checkpoint_activations needs batch_norm: frozen (statistics would be counted twice)")
    if not hasattr(model.backbone, "checkpoint_activations"):
        raise UsageError("model.checkpoint_activations: this backbone does not offer it")
    model.backbone.checkpoint_activations = True


def _initialise(model, preset: Preset, init: Path | None) -> None:
    if init is None:
        settings = preset.model
        load_backbone(model.backbone, settings.backbone, settings.variant, settings.weights)
        return
    try:
        model.load_state_dict(checkpoint.load(init)["model"])
    except (KeyError, RuntimeError) as error:
        raise FgdaError(f"{init} does not fit the preset's model: {' '.join(str(error).split())[:160]}") from error


def make_state(method: Method, preset: Preset, stage: Stage, precision) -> TrainState:
    optim = preset.optim
    method.autocast, method.scale = precision.autocast, precision.scale
    method.target_statistics = stage.batch_norm == "target" and method.uses_target
    for module in (method.model, *method.modules.values()):
        precision.to_device(module).train()
    optimizers: dict[str, torch.optim.Optimizer] = {
        "segmentation": torch.optim.SGD(
            method.segmentation_groups(stage.lr or optim.lr, optim.head_lr_factor),
            momentum=optim.momentum, weight_decay=optim.weight_decay,
        )
    }  # fmt: skip
    for name, discriminator in method.discriminators.items():
        rate = method.settings.discriminator_lr
        optimizers[name] = torch.optim.Adam(discriminator.parameters(), lr=rate, betas=(0.9, 0.99))
    return TrainState(method, optimizers, precision)


def make_samples(preset: Preset, source: PreparedDataset, target: PreparedDataset | None, method: type[Method]) -> PairedSamples:
    data = preset.data
    augmentation = Augmentation(data.flip, data.colour_jitter, data.blur)
    sizes = (data.source.size, data.target.size)
    sampler = method.sampling or data.sampling
    return PairedSamples(source, target, sizes, preset.run.seed, augmentation, sampler, data.untrained)


def make_validation(job: Job, preset: Preset, precision, process_group: ProcessGroup) -> Callable[[dict], dict[str, Any]] | None:
    """A function from a model state to metrics; None, said aloud, when there are no labelled images to validate on."""
    wanted = preset.data.evaluation
    try:
        dataset = open_dataset(job.data_root, wanted.dataset)
        dataset.items(wanted.split, labelled=True)
    except FgdaError as error:
        job.reporter.warn(f"no validation during training: {error}")
        return None

    def validate(state: dict) -> dict[str, Any]:
        model = checkpoint.build_model(preset.model, len(dataset.classes))
        model.load_state_dict(state)
        quiet = Reporter(quiet=True)
        return evaluate_model(
            precision.to_device(model).eval(), dataset, wanted.split, wanted.size, precision, quiet, process_group=process_group
        )

    return validate
