"""Put together and run a stage: data, model, method, optimisers, trainer."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..data.loader import PairedSamples
from ..data.store import contents_hash, open_domain
from ..methods.base import Method, Option
from ..methods.offline import OfflineData
from ..methods.registry import method_class
from ..models import checkpoint
from ..models.segmenter import Segmenter
from ..models.tuning import share_frozen, tune
from ..runtime.devices import Precision, make_precision, pick_device, tune_for_training
from ..runtime.distributed import ProcessGroup, join
from ..runtime.errors import FgdaError, UsageError
from ..runtime.files import alone_in
from ..runtime.record import recorded
from ..runtime.reporter import Reporter
from ..settings import Model, Preset, Stage
from .caching import check_cache, open_cache
from .components import (
    check_network,
    imagenet_encoder,
    initialise,
    make_samples,
    make_state,
    mix_statistics,
    prepare_method,
    say_licence,
    say_norms,
)
from .datasets import Datasets, open_datasets
from .loggers import check_loggers
from .memory import too_large
from .run_folder import Identity, RunFolder
from .state import TrainState
from .stopping import Clock
from .trainer import Trainer
from .validation import check_selection, make_validators

# points of mIoU in the last quarter of training: more, and it was too short
STILL_RISES = 1.0
# states of a run folder; for a FINISHED one nothing is built
NEW, STARTED, LONGER, FINISHED = range(4)


@dataclass(frozen=True)
class Job:
    """Settings of a stage besides its preset: data, folder, device, reporter."""

    preset: Preset
    data_root: Path
    out: Path | None = None
    device: str = "auto"
    fresh: bool = False
    reporter: Reporter = Reporter()
    # a finished run may be given more iterations
    extend: bool = False
    # take `model` over from the checkpoint that adaptation starts from
    init_model: bool = False

    def default_folder(self, stage: str, method: str | None = None) -> Path:
        parts = [stage] + ([method] if method else []) + [f"seed{self.preset.run.seed}"]
        return Path("runs") / self.preset.name / "-".join(parts)


def pretrain(job: Job) -> Path:
    """Train on the source alone; return the path of final.pth."""
    method = method_class("source-only")
    preset = job.preset.model_copy(update={"method": job.preset.source_only})
    return _run(
        job,
        preset,
        preset.pretrain,
        identity=Identity("pretrain", "source-only"),
        method=method,
        init=None,
        folder=job.default_folder("pretrain"),
    )


def adapt(job: Job, init: Path | None) -> Path:
    """Adapt from `init`, else from the start that `adapt.start` names; return the path of
    final.pth.
    """
    name = job.preset.method.name
    preset = _with_own_length(job.preset)
    folder = job.default_folder("adapt", name)
    if preset.data.target.labelled is not None and not method_class(name).uses_target:
        raise UsageError(f"data.target.labelled: method {name} reads no target")
    if init is None and preset.adapt.start == "pretrain":
        init = newest_pretrain(job)
        job.reporter.decide(f"starting from {init}")
    if init is None:
        return _run(
            job,
            preset,
            preset.adapt,
            identity=Identity("adapt", name),
            method=method_class(name),
            init=None,
            folder=folder,
        )
    if preset.adapt.start == "backbone":
        job.reporter.decide(f"starting from {init}: adapt.start: backbone is not followed")
        preset = _with_adapt(preset, start="pretrain")
    content = checkpoint.load(init)
    preset = _with_matching_model(preset, content, init, job=job)
    _warn_of_unfinished(content.get("source_validation") or [], init, job.reporter)
    _warn_of_kept_norms(content, init, preset, job.reporter)
    identity = Identity(
        "adapt", name, str(init), init_hash=checkpoint.weights_hash(content["model"])
    )
    return _run(
        job,
        preset,
        preset.adapt,
        identity=identity,
        method=method_class(name),
        init=(init, content),
        folder=folder,
    )


def _warn_of_unfinished(curve: list, init: Path, reporter: Reporter) -> None:
    """Warn when the mIoU on source validation images still rose in the last quarter of the start's
    training.
    """
    last = len(curve) // 4
    if not last:
        return
    before, after = (max(value for _, value in part) for part in (curve[:-last], curve[-last:]))
    if after > before + STILL_RISES:
        reporter.warn(
            f"{init} was not trained out: in the last quarter of its training its mIoU on source"
            f" validation images still rose from {before:.1f} to {after:.1f}\ntrain it longer first"
            " (pretrain.iterations): what adaptation gains may be no more than further training"
        )


def _warn_of_kept_norms(
    content: dict[str, Any], init: Path, preset: Preset, reporter: Reporter
) -> None:
    """Warn where batch norm is to take the target's statistics, and the start's head was trained on
    an encoder that kept its own.
    """
    kept = content["preset"]["model"].get("tune", "full") != "full"
    has_statistics = any(key.endswith("running_mean") for key in content["model"])
    method = method_class(preset.method.name)
    takes_others = preset.adapt.batch_norm in ("mixed", "target") and preset.model.tune == "full"
    if kept and has_statistics and (takes_others or Option.TUNED not in method.supports):
        reporter.warn(
            f"{init} was trained on batch norm that kept its statistics (model.tune), which are now"
            " to be the target's: that cost 8.4 points where we tried it (docs/tuning.md)\ncompare"
            " with --set adapt.batch_norm=frozen, and a method other than adabn"
        )


def _with_own_length(preset: Preset) -> Preset:
    """The preset with the number of iterations that its method asks for, where it does."""
    iterations = method_class(preset.method.name).iterations
    if iterations is None:
        return preset
    return _with_adapt(preset, iterations=iterations)


def _with_adapt(preset: Preset, **keys: Any) -> Preset:
    """The preset with other values of these keys of `adapt`."""
    return preset.model_copy(update={"adapt": preset.adapt.model_copy(update=keys)})


def newest_pretrain(job: Job) -> Path:
    """Return the newest finished source model of the preset. Raises FgdaError when none is
    finished.
    """
    same_seed = job.default_folder("pretrain") / "checkpoints" / "final.pth"
    if same_seed.is_file():
        return same_seed
    checkpoints = list(
        (Path("runs") / job.preset.name).glob("pretrain-seed*/checkpoints/final.pth")
    )
    if not checkpoints:
        raise FgdaError(
            f"no finished pretrain of preset '{job.preset.name}': run `fgda pretrain` first, or"
            " give --init CKPT"
        )
    return max(checkpoints, key=lambda path: path.stat().st_mtime)


def _with_matching_model(preset: Preset, content: dict, init: Path, job: Job) -> Preset:
    """The preset, its `model` equal to the start's in all that shapes the function. Raises
    UsageError naming what differs.
    """
    try:
        differing = checkpoint.differing_keys(preset.model, content)
    except (KeyError, TypeError, ValueError) as error:
        raise FgdaError(
            f"{init}: the checkpoint is inconsistent ({' '.join(str(error).split())[:120]})"
        ) from error
    if not differing:
        return preset
    if not job.init_model:
        shown = ", ".join(
            f"model.{key} (preset {ours}, checkpoint {theirs})"
            for key, (ours, theirs) in differing.items()
        )
        raise UsageError(
            f"{init} is another network than the preset's: {shown}\nset these keys, or take its"
            " model: --init-model"
        )
    theirs = Model.model_validate(content["preset"]["model"])
    job.reporter.decide(f"model taken over from {init}: {', '.join(differing)}")
    return preset.model_copy(
        update={"model": theirs.model_copy(update={"weights": preset.model.weights})}
    )


@dataclass(frozen=True)
class Plan:
    """A stage that can be trained: everything that could refuse it has been asked."""

    job: Job
    preset: Preset
    stage: Stage
    identity: Identity
    method: type[Method]
    # the checkpoint that it starts from, and its content
    init: tuple[Path, dict] | None
    data: Datasets
    samples: PairedSamples
    # on the meta device, without weights
    network: Segmenter
    device: torch.device
    group: ProcessGroup


def check(
    job: Job,
    preset: Preset,
    stage: Stage,
    identity: Identity,
    method: type[Method],
    init: tuple[Path, dict] | None,
) -> Plan:
    """Return the plan of a stage. Raises FgdaError or UsageError for whatever cannot be, before
    anything that takes long.
    """
    check_loggers(preset)
    data = open_datasets(
        preset, job.data_root, method, reporter=job.reporter, start=init and init[1]
    )
    samples = make_samples(preset, stage, data, method=method)
    check_selection(preset, identity.stage, method, data=data)
    if any(preset.data.target.border) and identity.stage == "adapt" and not method.reads_border:
        job.reporter.decide(
            f"data.target.border: method {identity.method} has no teacher's pseudo-labels, so it"
            " does nothing"
        )
    device = pick_device(job.device)
    group = join(device)
    _check_batch(stage, identity.stage, group.size)
    network = check_network(preset, stage, method, data=data, init=init)
    _check_support(preset, stage, identity, method=method, processes=group.size)
    if preset.run.precision == "auto" and Option.REDUCED not in method.supports:
        preset = preset.model_copy(
            update={"run": preset.run.model_copy(update={"precision": "fp32"})}
        )
    if preset.run.cache_features:
        check_cache(network, preset, stage, method=method)
    if device.type == "cuda":
        large = too_large(preset, stage, identity.method, device)
        if large is not None:
            job.reporter.warn(large)
    source = (samples.source, samples.source_items)
    target = (samples.target, samples.target_items)
    identity = replace(
        identity, data=contents_hash([source, target, (samples.labelled, samples.labelled_items)])
    )
    return Plan(
        job,
        preset,
        stage,
        identity=identity,
        method=method,
        init=init,
        data=data,
        samples=samples,
        network=network,
        device=device,
        group=group,
    )


def check_adapt(job: Job) -> None:
    """Raise what `adapt` would raise before it trains, for a preset whose source model is still to
    be trained.
    """
    preset = _with_own_length(job.preset)
    method = method_class(job.preset.method.name)
    classes = open_domain(job.data_root, preset.data.source.dataset).classes
    init = (
        None
        if preset.adapt.start == "backbone"
        else (Path("source-only"), {"classes": classes.to_json()})
    )
    check(
        job,
        preset,
        preset.adapt,
        identity=Identity("adapt", preset.method.name),
        method=method,
        init=init,
    )


def _run(
    job: Job,
    preset: Preset,
    stage: Stage,
    identity: Identity,
    method: type[Method],
    init: tuple[Path, dict] | None,
    folder: Path,
) -> Path:
    started = time.monotonic()
    plan = check(job, preset, stage, identity=identity, method=method, init=init)
    run = RunFolder(job.out or folder)
    with ExitStack() as stack:
        # the caller's stays
        stack.enter_context(
            torch.random.fork_rng([plan.device] if plan.device.type == "cuda" else [])
        )
        state_of_run = _open(plan, run, stack)
        if state_of_run == FINISHED:
            job.reporter.say(f"{run.folder} {_how_it_ended(run, stage)}")
            return run.final
        state = _build_or_resume(plan, run, state_of_run)
        run.forget_last()
        train(plan, run, state, started=started)
    return run.final


def _build_or_resume(plan: Plan, run: RunFolder, state_of_run: int) -> TrainState:
    """Return the state of a new run, or of the one that the folder holds."""
    if state_of_run == NEW:
        return build(plan, run, None)
    resumed = run.read_last()
    if "train" not in resumed:
        raise FgdaError(
            f"{run.last} cannot be resumed (it holds weights alone): use --fresh to start over"
        )
    state = build(plan, run, resumed)
    state.load_state_dict(resumed["train"])
    reporter = plan.job.reporter
    if state_of_run == LONGER:
        for text in state.go_on_longer():
            reporter.decide(text)
    elif plan.preset.run.time_limit is None or run.has_more_room(plan.preset.run):
        state.planned = None
    reporter.say(f"resuming {run.folder} at iteration {state.iteration} of {plan.stage.iterations}")
    return state


def _open(plan: Plan, run: RunFolder, stack: ExitStack) -> int:
    """Open the run's folder, which no other process works in until the stack ends.

    Return what it holds: NEW, STARTED, LONGER (started, and goes on beyond its end), or FINISHED;
    the first process decides.
    """

    def open_run() -> int:
        stack.enter_context(alone_in(run.folder))
        has_more_room = run.final.is_file() and run.has_more_room(plan.preset.run)
        goes_on = plan.job.extend or (not plan.job.fresh and has_more_room)
        longer = goes_on and _is_longer(plan.job, run, plan.stage, identity=plan.identity)
        run.open(
            plan.preset,
            plan.identity,
            plan.job.fresh,
            extend=longer,
            data_root=plan.job.data_root,
        )
        if run.final.is_file():
            return FINISHED
        if not run.last.is_file():
            return NEW
        return LONGER if longer else STARTED

    return plan.group.first_decides(open_run)


def build(plan: Plan, run: RunFolder, resumed: dict | None) -> TrainState:
    """Return the networks, the method and its optimisers, as they begin; a resumed run's state is
    loaded over them.
    """
    preset = plan.preset
    stage = plan.stage
    reporter = plan.job.reporter
    # all that is drawn from here on is drawn in this order
    torch.manual_seed(preset.run.seed)
    model, began = _network(plan, resumed)
    precision = _precision(plan, model, resumed)
    fixed_norms = plan.method.fixed_norms
    if resumed is None and stage.batch_norm == "mixed" and not fixed_norms:
        mix_statistics(precision.to_device(model), stage, plan.samples, reporter=reporter)
    say_norms(
        model,
        preset,
        stage,
        stage_name=plan.identity.stage,
        fresh=plan.init is None,
        fixed=fixed_norms,
        reporter=reporter,
    )
    weights = plan.samples.class_weights(preset.data.class_balance)
    method = prepare_method(
        plan.method,
        model,
        preset,
        stage=stage,
        precision=precision,
        group=plan.group,
        fresh_heads=plan.init is None,
        class_weights=None if weights is None else weights.to(plan.device),
    )
    if preset.run.cache_features:
        model.feature_cache = open_cache(
            plan.samples, preset, model, network=plan.network, run=run, reporter=reporter
        )
    state = make_state(method, preset, stage, precision=precision)
    state.began = began
    _before_training(plan, run, method, precision=precision, resumed=resumed is not None)
    domains = (preset.data.source, preset.data.target)
    one_size = all(domain.crop or domain.scale == (1.0, 1.0) for domain in domains)
    tune_for_training(precision, one_size, reporter)
    if preset.run.compile:
        model.backbone.compile()
    return state


def _network(plan: Plan, resumed: dict | None) -> tuple[Segmenter, dict[str, torch.Tensor] | None]:
    """Return the network as the stage begins, and the weights of its start, if it has one."""
    preset = plan.preset
    model = checkpoint.build_model(preset.model, len(plan.data.classes))
    began = None
    if plan.init is None and resumed is None:
        say_licence(preset.model, plan.job.reporter)
    # last.pth holds only what is trained: the rest is loaded from the start
    if resumed is None or preset.model.tune != "full":
        began = initialise(model, preset, plan.init, classes=plan.data.classes)
    tune(model, preset.model)
    return model, began


def _precision(plan: Plan, model: Segmenter, resumed: dict | None) -> Precision:
    """Return the precision that is asked for; `auto` is that in which a run was begun, or else
    what is fastest here for this network and step.
    """
    preset = plan.preset
    stage = plan.stage
    wanted = preset.run.precision
    if resumed is not None:
        begun_in = resumed["train"]["precision"]
        if wanted == "auto":
            wanted = begun_in
        elif wanted != begun_in:
            plan.job.reporter.decide(
                f"precision {wanted} from here on: the run was begun in {begun_in}"
            )
    width, height = preset.data.source.crop or preset.data.source.size
    images = max(1, stage.batch_size // (stage.accumulate * plan.group.size))
    return make_precision(
        wanted,
        plan.device,
        plan.group,
        model=model,
        reporter=plan.job.reporter,
        step=(images, 3, height, width),
    )


def _before_training(
    plan: Plan, run: RunFolder, method: Method, precision: Precision, resumed: bool
) -> None:
    """Let the method look at the data, and place the networks that it compares with: what they
    share with the trained one is held once.
    """
    offline = OfflineData(
        plan.samples,
        run.folder / "offline",
        plan.device,
        reporter=plan.job.reporter,
        process_group=plan.group,
        iterations=plan.stage.iterations,
        imagenet_encoder=partial(imagenet_encoder, plan.preset.model, precision),
        resumed=resumed,
    )
    method.before_training(offline)
    for module in method.references.values():
        precision.to_device(module).eval().requires_grad_(False)
        share_frozen(module, method.model)


def train(plan: Plan, run: RunFolder, state: TrainState, started: float) -> None:
    """Train to the end, or until a signal (Stopped); a time limit counts from `started`
    (time.monotonic).
    """
    job = plan.job
    preset = plan.preset
    data = plan.data
    validators = make_validators(
        preset,
        plan.identity.stage,
        plan.method,
        data=data,
        precision=state.precision,
        group=plan.group,
        reporter=job.reporter,
    )
    pixels = data.pixels()
    if plan.group.is_first:
        what = f"preset {preset.name}, method {plan.identity.method}, seed {preset.run.seed}"
        warnings = [f"warning: {text}" for text in job.reporter.warned]
        read = [
            f"{domain}: {name} of {split}, pixels {hashed}"
            for domain, name, split, hashed in pixels
        ]
        for line in (
            f"{what}: all settings in {run.record.name}",
            *read,
            *(job.reporter.decisions or []),
            *warnings,
        ):
            run.note(line)
    header = {
        "stage": plan.identity.stage,
        "method": plan.identity.method,
        "classes": data.classes.to_json(),
        "input": data.rule.to_json(),
        "untaught": plan.samples.untaught(),
        "pixels": [list(facts) for facts in pixels],
    }
    if preset.model.tune != "full":
        # adapters alone are of use beside these weights
        header["init"] = plan.identity.init
    clock = Clock(preset.run.time_limit, started - state.spent)
    Trainer(
        state,
        plan.samples,
        plan.stage,
        preset=preset,
        run=run,
        header=header,
        validators=validators,
        reporter=job.reporter,
        process_group=plan.group,
        clock=clock,
    ).train()


def _how_it_ended(run: RunFolder, stage: Stage) -> str:
    """Return the message for a run whose final.pth exists: it is finished, or it ended before its
    last iteration.
    """
    reached = run.reached()
    if reached is None or reached >= stage.iterations:
        return "is finished already (--fresh starts over)"
    return (
        f"ended at iteration {reached} of {stage.iterations}, for time or patience: a larger"
        " --budget or run.patience, or --extend, goes on; --fresh starts over"
    )


def _is_longer(job: Job, run: RunFolder, stage: Stage, identity: Identity) -> bool:
    """Return whether a run goes on beyond its end: to more iterations than it was begun for, or to
    those it did not reach.

    What that does to the learning rates is said.
    """
    before = run.length(identity.stage)
    reached = run.reached()
    if (
        before is None
        or reached is None
        or stage.iterations <= (reached if run.final.is_file() else before)
    ):
        return False
    rates = "the learning rates go on as planned"
    limited = recorded(run.folder, lambda record: record["run"]["time_limit"]) is not None
    if stage.iterations != before or limited:
        rates = (
            "the rates follow the longer schedule from there, so they jump up at first: the result"
            " is not that of one run of this length"
        )
    job.reporter.decide(
        f"{run.folder} goes on from iteration {reached} to {stage.iterations}; {rates}"
    )
    return True


REMEDIES = {
    Option.DETAIL: "set model.detail=null",
    Option.LABELLED: "leave data.target.labelled out, or choose another method",
    Option.ACCUMULATE: (
        "set accumulate=1, with a smaller crop or model.checkpoint_activations to save memory"
    ),
    Option.AUXILIARY: "set model.multi_level=false",
    Option.PROCESSES: "start it without torchrun",
    Option.REDUCED: "set run.precision=fp32",
    Option.TUNED: "set model.tune=full",
}


def _check_support(
    preset: Preset, stage: Stage, identity: Identity, method: type[Method], processes: int
) -> None:
    """Raise UsageError for an option that the preset asks for and the method does not say to
    support.
    """
    asked = {
        Option.DETAIL: preset.model.detail is not None,
        Option.AUXILIARY: preset.model.multi_level,
        Option.LABELLED: preset.data.target.labelled is not None and identity.stage == "adapt",
        Option.ACCUMULATE: stage.accumulate > 1,
        Option.TRAINED_NORMS: stage.batch_norm in ("statistics", "train", "target"),
        Option.MIXED_NORMS: stage.batch_norm == "mixed",
        Option.PROCESSES: processes > 1,
        Option.REDUCED: preset.run.precision in ("bf16", "fp16"),
        Option.TUNED: preset.model.tune != "full",
    }
    each = stage.batch_size // (processes * stage.accumulate)
    if preset.model.head == "pyramid" and each < 2:
        raise UsageError(
            "model.head: pyramid normalises by the images of a batch, and each pass has one\n"
            f"set {identity.stage}.batch_size to {2 * processes * stage.accumulate} or more"
        )
    for option, is_asked in asked.items():
        if is_asked and option not in method.supports:
            remedy = REMEDIES.get(option, f"set {identity.stage}.batch_norm=frozen")
            raise UsageError(f"method {identity.method} does not go with {option.value}: {remedy}")


def _check_batch(stage: Stage, name: str, processes: int) -> None:
    """Raise UsageError when a batch cannot be split evenly: a run is the same on any number of
    processes.
    """
    if stage.batch_size % (processes * stage.accumulate):
        what = f"their number, {processes}" + (
            f", times accumulate, {stage.accumulate}" if stage.accumulate > 1 else ""
        )
        raise UsageError(
            f"{name}.batch_size is {stage.batch_size}, over all processes: it must be a multiple of"
            f" {what}\ne.g. --set {name}.batch_size={processes * stage.accumulate}"
        )
