"""Put together and run a stage: data, model, method, optimisers, trainer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from ..config.schema import Model, Preset, Stage
from ..methods.base import Method
from ..methods.offline import OfflineData
from ..methods.registry import method_class
from ..models import checkpoint
from ..models.normalisation import batch_norms
from ..runtime.devices import make_precision, pick_device, tune_for_training
from ..runtime.distributed import join
from ..runtime.errors import FgdaError, UsageError
from ..runtime.reporter import Reporter
from .assembly import imagenet_encoder, initialise, make_samples, make_state, mix_statistics, prepare_method
from .judging import make_judges
from .loggers import check_loggers
from .run_folder import Identity, RunFolder
from .setup import open_datasets
from .stopping import Clock
from .trainer import Trainer

NEW, STARTED, FINISHED = range(3)  # what a run folder may hold


@dataclass(frozen=True)
class Job:
    """Where and how a stage runs."""

    preset: Preset
    data_root: Path
    out: Path | None = None
    device: str = "auto"
    fresh: bool = False
    reporter: Reporter = Reporter()
    extend: bool = False  # a finished run may be given more iterations
    started: float = field(default_factory=time.monotonic)  # what run.time_limit counts from
    init_model: bool = False  # take `model` over from the checkpoint that adaptation starts from

    def default_folder(self, stage: str, method: str | None = None) -> Path:
        parts = [stage] + ([method] if method else []) + [f"seed{self.preset.run.seed}"]
        return Path("runs") / self.preset.name / "-".join(parts)


def pretrain(job: Job) -> Path:
    """Source-only training; returns final.pth."""
    method = method_class("source-only")
    preset = job.preset.model_copy(update={"method": job.preset.source_only})
    return _run(job, preset, preset.pretrain, Identity("pretrain", "source-only"), method, None, job.default_folder("pretrain"))


def adapt(job: Job, init: Path | None) -> Path:
    """Adaptation from `init`, else as `adapt.start` says; returns final.pth."""
    name, preset = job.preset.method.name, _with_own_length(job.preset)
    folder = job.default_folder("adapt", name)
    if preset.data.target.labelled is not None and not method_class(name).uses_target:
        raise UsageError(f"data.target.labelled: method {name} reads no target")
    if init is None and preset.adapt.start == "pretrain":
        init = newest_pretrain(job)
        job.reporter.decide(f"starting from {init}")
    if init is None:
        return _run(job, preset, preset.adapt, Identity("adapt", name), method_class(name), None, folder)
    content = checkpoint.load(init)
    preset = _with_matching_model(preset, content, init, job)
    identity = Identity("adapt", name, str(init), checkpoint.weights_hash(content["model"]))
    return _run(job, preset, preset.adapt, identity, method_class(name), (init, content), folder)


def _with_own_length(preset: Preset) -> Preset:
    """The preset with the number of iterations that its method asks for, where it does."""
    iterations = method_class(preset.method.name).iterations
    if iterations is None:
        return preset
    return preset.model_copy(update={"adapt": preset.adapt.model_copy(update={"iterations": iterations})})


def newest_pretrain(job: Job) -> Path:
    """Raises FgdaError when none is finished."""
    same_seed = job.default_folder("pretrain") / "checkpoints" / "final.pth"
    if same_seed.is_file():
        return same_seed
    found = list((Path("runs") / job.preset.name).glob("pretrain-seed*/checkpoints/final.pth"))
    if not found:
        raise FgdaError(f"no finished pretrain of preset '{job.preset.name}': run `fgda pretrain` first, or give --init CKPT")
    return max(found, key=lambda path: path.stat().st_mtime)


def _with_matching_model(preset: Preset, content: dict, init: Path, job: Job) -> Preset:
    """The preset, its `model` equal to the start's in all that shapes the function. Raises UsageError naming what differs."""
    try:
        differing = checkpoint.differing_keys(preset.model, content)
    except (KeyError, TypeError, ValueError) as error:
        raise FgdaError(f"{init}: the checkpoint is inconsistent ({' '.join(str(error).split())[:120]})") from error
    if not differing:
        return preset
    if not job.init_model:
        shown = ", ".join(f"model.{key} (preset {ours}, checkpoint {theirs})" for key, (ours, theirs) in differing.items())
        raise UsageError(f"{init} is another network than the preset's: {shown}\nset these keys, or take its model: --init-model")
    theirs = Model.model_validate(content["preset"]["model"])
    job.reporter.decide(f"model taken over from {init}: {', '.join(differing)}")
    return preset.model_copy(update={"model": theirs.model_copy(update={"weights": preset.model.weights})})


def _run(
    job: Job, preset: Preset, stage: Stage, identity: Identity, method: type[Method], init: tuple[Path, dict] | None, folder: Path
) -> Path:
    check_loggers(preset)
    run = RunFolder(job.out or folder)
    data = open_datasets(preset, job.data_root, method, job.reporter, init and init[1])
    device = pick_device(job.device)
    group = join(device)
    _check_batch(stage, identity.stage, group.size)
    with torch.device("meta"):  # a network that cannot be built is known before the run's folder is made
        checkpoint.build_model(preset.model, len(data.classes))

    def open_run() -> int:
        longer = job.extend and _is_longer(job, run, stage, identity)
        run.open(preset, identity, job.fresh, longer)
        return FINISHED if run.final.is_file() else STARTED if run.last.is_file() else NEW

    found = group.first_decides(open_run)
    if found == FINISHED:
        job.reporter.say(f"{run.folder} is finished already (--fresh starts over)")
        return run.final
    resumed = checkpoint.load(run.last) if found == STARTED else None
    if resumed is not None and "train" not in resumed:
        raise FgdaError(f"{run.last} cannot be resumed (it holds weights alone): use --fresh to start over")
    torch.manual_seed(preset.run.seed)
    model = checkpoint.build_model(preset.model, len(data.classes))
    samples = make_samples(preset, stage, data, method)
    if resumed is None:
        initialise(model, preset, init, data.classes)
    wanted = resumed["train"]["precision"] if resumed else preset.run.precision
    precision = make_precision(wanted, device, group, model, job.reporter)
    if resumed is None and stage.batch_norm == "mixed":
        mix_statistics(precision.to_device(model), stage, samples, job.reporter)
    prepared = prepare_method(method, model, preset, stage, precision, group)
    weights = samples.class_weights(preset.data.class_balance)
    prepared.class_weights = None if weights is None else weights.to(device)
    state = make_state(prepared, preset, stage, precision)
    if stage.batch_norm != "frozen" and not batch_norms(model.backbone):
        job.reporter.decide(
            f"{identity.stage}.batch_norm: {stage.batch_norm} changes nothing: {preset.model.backbone} has no batch norm"
        )
    twin = partial(imagenet_encoder, preset.model, precision)
    offline = OfflineData(samples, run.folder / "offline", device, job.reporter, group, stage.iterations, twin)
    state.method.before_training(offline)
    for module in state.method.references.values():
        precision.to_device(module).eval().requires_grad_(False)
    domains = (preset.data.source, preset.data.target)
    tune_for_training(precision, all(domain.crop or domain.scale == (1.0, 1.0) for domain in domains), job.reporter)
    if preset.run.compile:
        model.backbone.compile()
    if resumed is not None:
        state.load_state_dict(resumed["train"])
        job.reporter.say(f"resuming {run.folder} at iteration {state.iteration} of {stage.iterations}")
    judges = make_judges(preset, identity.stage, method, data, precision, group, job.reporter)
    if group.is_first:
        for decision in job.reporter.decisions or []:
            run.note(decision)
    header = {"stage": identity.stage, "method": identity.method, "classes": data.classes.to_json(),
              "input": data.rule.to_json()}  # fmt: skip
    clock = Clock(preset.run.time_limit, job.started)
    Trainer(state, samples, stage, preset, run, header, judges, job.reporter, group, clock=clock).train()
    return run.final


def _is_longer(job: Job, run: RunFolder, stage: Stage, identity: Identity) -> bool:
    """Whether the run is asked to train beyond what it was begun for; what that does to the rates is said."""
    before = run.length(identity.stage)
    if before is None or before >= stage.iterations:
        return False
    job.reporter.decide(
        f"{run.folder} goes on from iteration {before} to {stage.iterations}; the rates follow the longer schedule from there, "
        "so they jump up at first: the result is not that of one run of this length"
    )
    return True


def _check_batch(stage: Stage, name: str, processes: int) -> None:
    """Raises UsageError when a batch cannot be split evenly: a run is the same on any number of processes."""
    if stage.batch_size % (processes * stage.accumulate):
        what = f"their number, {processes}" + (f", times accumulate, {stage.accumulate}" if stage.accumulate > 1 else "")
        raise UsageError(
            f"{name}.batch_size is {stage.batch_size}, over all processes: it must be a multiple of {what}\n"
            f"e.g. --set {name}.batch_size={processes * stage.accumulate}"
        )
