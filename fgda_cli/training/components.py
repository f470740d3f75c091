"""The parts of a stage, each made by one function: weights to start from, method, state,
samples.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..data.classes import ClassSet
from ..data.loader import PairedSamples
from ..methods.base import Engine, Method
from ..methods.optimizers import Recipe, Scheduled, refine
from ..models import checkpoint, encoders
from ..models.normalisation import batch_norms
from ..models.segmenter import Segmenter
from ..models.tuning import tune
from ..runtime.devices import Precision
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import FgdaError, UsageError
from ..runtime.reporter import Reporter
from ..settings import Model, Preset, Stage
from .datasets import Datasets
from .state import TrainState


def initialise(
    model: Segmenter, preset: Preset, init: tuple[Path, dict] | None, classes: ClassSet
) -> dict[str, torch.Tensor] | None:
    """Load the backbone's own weights, or a checkpoint's (`weights_of_start`); return the
    checkpoint's.
    """
    if init is None:
        checkpoint.load_own_weights(model.backbone, preset.model)
        return None
    weights = weights_of_start(init, model, classes)
    model.load_state_dict(weights)
    return weights


def weights_of_start(
    init: tuple[Path, dict], model: Segmenter, classes: ClassSet
) -> dict[str, torch.Tensor]:
    """Return a checkpoint's weights with its classes, matched by name, in the order of `classes`.

    Raises UsageError for one of other classes, FgdaError for one that does not fit `model`, which
    may be on the meta device.
    """
    path, content = init
    try:
        theirs = ClassSet.from_json(content["classes"])
        weights = content["model"]
    except (KeyError, ValueError) as error:
        raise FgdaError(f"{path} does not fit the preset's model: {error}") from error
    if set(theirs.names) != set(classes.names):
        raise UsageError(
            f"{path} has different classes from the source: {', '.join(theirs.names)}\n"
            f"the source has {', '.join(classes.names)}"
        )
    if theirs.names != classes.names:
        order = [theirs.names.index(name) for name in classes.names]
        weights = checkpoint.reorder_head(weights, order)
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    differing = sorted(
        name for name in ours.keys() | shapes.keys() if ours.get(name) != shapes.get(name)
    )
    if differing:
        raise FgdaError(
            f"{path} does not fit the preset's model: {len(differing)} weights differ, e.g."
            f" {differing[0]}"
        )
    checkpoint.check_finite(weights, str(path))
    return weights


# licences that leave every use free
FREE = ("apache-2.0", "mit", "bsd-3-clause")


def say_licence(settings: Model, reporter: Reporter) -> None:
    """Say under which licence an encoder's weights are, before they are fetched, where it is not a
    free one.
    """
    if settings.weights not in ("imagenet", "imagenet-v2", "dinov2"):
        return
    describe = getattr(encoders.family(settings.backbone), "describe_weights", None)
    licence = describe(settings.backbone)["licence"] if describe else None
    if licence is not None and licence not in FREE:
        reporter.decide(f"licence of the weights of {settings.backbone}: {licence}")


def imagenet_encoder(settings: Model, precision: Precision) -> nn.Module | None:
    """Return the encoder with its ImageNet weights; None where the preset starts without."""
    if settings.weights == "none":
        return None
    encoder = checkpoint.build_model(settings, 1).backbone
    checkpoint.load_own_weights(encoder, settings)
    return precision.to_device(encoder).eval().requires_grad_(False)


def mix_statistics(
    model: Segmenter, stage: Stage, samples: PairedSamples, reporter: Reporter
) -> None:
    """Blend the target's statistics into batch norm's; every process sees all images, so that all
    have the same network.
    """
    if samples.target is None:
        reporter.decide("adapt.batch_norm: mixed is frozen here: the method reads no target")
    elif model.mix_statistics(samples.target_batches(), stage.batch_norm_target_share):
        share = 100 * stage.batch_norm_target_share
        reporter.say(
            f"batch norm begins with {share:g} % of the statistics of"
            f" {len(samples.target_items)} target images"
            + (f" and {100 - share:g} % of its own" if share < 100 else "")
        )


def prepare_method(
    method: type[Method],
    model: Segmenter,
    preset: Preset,
    stage: Stage,
    precision: Precision,
    group: ProcessGroup,
    fresh_heads: bool = False,
    class_weights: torch.Tensor | None = None,
) -> Method:
    """Return the method around its model, which is on the device; fresh heads have norms still to
    be trained.
    """
    model.set_batch_norm(stage.batch_norm, fresh_heads)
    if group.size > 1:
        model.share_batch_norm(group)
    if preset.model.checkpoint_activations:
        model.backbone.checkpoint_activations = True
    follows_target = stage.batch_norm == "target" and method.uses_target
    engine = Engine(
        preset.run.seed,
        follows_target,
        class_weights,
        autocast=precision.autocast,
        scale=precision.scale,
        process_group=group,
    )
    return method(model, preset.method, engine)


def check_network(
    preset: Preset,
    stage: Stage,
    method: type[Method],
    data: Datasets,
    init: tuple[Path, dict] | None = None,
) -> Segmenter:
    """Return the network on the meta device, without weights. Raises UsageError or FgdaError when
    it cannot be built, cannot begin as the checkpoint `init`, or cannot be trained as the stage and
    the method say.
    """
    with torch.device("meta"):
        model = checkpoint.build_model(preset.model, len(data.classes))
        # one without weights is still to be trained
        if init is not None and "model" in init[1]:
            weights_of_start(init, model, data.classes)
        tune(model, preset.model, check_only=True)
    recipe = Recipe(preset.optim, stage)
    refine(model.parameter_groups(recipe.lr, preset.optim.head_lr_factor), model, preset.optim)
    if preset.model.checkpoint_activations:
        if stage.batch_norm != "frozen" and getattr(model.backbone, "recomputes_norms", True):
            raise UsageError(
                "model.checkpoint_activations needs batch_norm: frozen (statistics would be counted"
                " twice)"
            )
        if not hasattr(model.backbone, "checkpoint_activations"):
            raise UsageError("model.checkpoint_activations: this backbone does not offer it")
    method.check(preset.method, model, data.source, target=data.target)
    return model


def say_norms(
    model: Segmenter,
    preset: Preset,
    stage: Stage,
    stage_name: str,
    fresh: bool,
    fixed: bool,
    reporter: Reporter,
) -> None:
    """Say where the stage's batch_norm does not hold for the whole network.

    `fresh`: it starts from the encoder's own weights; `fixed`: the method sets batch norm itself.
    """
    in_encoder = batch_norms(model.backbone)
    if fixed and stage.batch_norm != "frozen":
        reporter.decide(
            f"{stage_name}.batch_norm: {stage.batch_norm} is not used: the method sets batch norm"
            " itself, once"
        )
        return
    if stage.batch_norm != "frozen" and not in_encoder:
        reporter.decide(
            f"{stage_name}.batch_norm: {stage.batch_norm} changes nothing: {preset.model.backbone}"
            " has no batch norm"
        )
    keeps_norms = preset.model.tune != "full" and stage.batch_norm not in ("frozen", "mixed")
    if keeps_norms and in_encoder:
        reporter.decide(
            f"{stage_name}.batch_norm: {stage.batch_norm} holds outside the encoder alone:"
            f" model.tune: {preset.model.tune} keeps its norms"
        )
    if fresh and preset.model.tune != "full" and preset.model.weights == "none":
        reporter.warn(
            f"model.tune: {preset.model.tune} keeps an encoder of random weights (model.weights:"
            " none)"
        )
    if fresh and preset.model.weights == "none" and stage.batch_norm == "frozen" and in_encoder:
        reporter.warn(
            f"{stage_name}.batch_norm: frozen keeps the norms of an encoder without weights"
            " (model.weights: none) as they are initialised, so they normalise nothing: set"
            f" {stage_name}.batch_norm=train"
        )
    if (
        fresh
        and stage.batch_norm in ("frozen", "mixed")
        and len(batch_norms(model)) > len(in_encoder)
    ):
        reporter.decide(
            f"{stage_name}.batch_norm: {stage.batch_norm} holds for the encoder; the new head's"
            " norms are trained"
        )


def make_state(method: Method, preset: Preset, stage: Stage, precision: Precision) -> TrainState:
    for module in (method.model, *method.modules.values()):
        precision.to_device(module).train()
    return TrainState(method, make_optimizers(method, preset, stage), precision)


def make_samples(
    preset: Preset, stage: Stage, data: Datasets, method: type[Method]
) -> PairedSamples:
    return PairedSamples(
        data.source,
        data.target,
        preset.data,
        seed=preset.run.seed,
        untrained=data.untrained,
        own_sampling=getattr(preset.method, "sampling", None),
        changes_colours=stage.colour_jitter,
        reads_border=method.reads_border,
        labelled=data.labelled,
    )


def make_optimizers(method: Method, preset: Preset, stage: Stage) -> dict[str, Scheduled]:
    """Return the method's optimisers and schedules for a stage of the preset."""
    return method.optimizers(Recipe(preset.optim, stage))
