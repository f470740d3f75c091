"""Whether a stage's encoder may be run once an image, and where its features go."""

from __future__ import annotations

import shutil

from ..data.loader import PairedSamples
from ..methods.base import Method
from ..models.checkpoint import weights_hash
from ..models.feature_cache import FeatureCache, bytes_an_image
from ..models.segmenter import Segmenter
from ..runtime.errors import FgdaError, UsageError
from ..runtime.reporter import Reporter
from ..settings import Preset, Stage
from .run_folder import RunFolder

FEATURES = "features"


def check_cache(network: Segmenter, preset: Preset, stage: Stage, method: type[Method]) -> None:
    """Raise UsageError for features that would not be the same twice."""
    what = "run.cache_features"
    if preset.model.tune != "frozen":
        raise UsageError(f"{what}: the encoder is trained: set model.tune=frozen")
    if network.new_in_encoder() or preset.model.detail is not None:
        raise UsageError(f"{what}: parts of this encoder, or its windows, change from step to step")
    if method.changes_images:
        raise UsageError(
            f"{what}: method {preset.method.name} makes images of its own in each step, whose"
            " features no cache can have"
        )
    data = preset.data
    changing = {
        "data.colour_jitter": stage.colour_jitter and any(data.colour_jitter),
        "data.blur": data.blur > 0,
        **{
            f"data.{name}.{key}": changes
            for name, domain in (("source", data.source), ("target", data.target))
            for key, changes in (
                ("crop", domain.crop is not None),
                ("scale", domain.scale != (1.0, 1.0)),
            )
        },
    }
    named = [key for key, changes in changing.items() if changes]
    if named:
        raise UsageError(
            f"{what}: images change at random by {', '.join(named)}, and their features with them:"
            " turn these off"
        )


def open_cache(
    samples: PairedSamples,
    preset: Preset,
    model: Segmenter,
    network: Segmenter,
    run: RunFolder,
    reporter: Reporter,
) -> FeatureCache:
    """Return the cache of a run's encoder, once its size was said, by the `network` on the meta
    device. Raises FgdaError where the disk lacks it.
    """
    encoder = network.backbone.eval()
    views = 2 if preset.data.flip else 1
    counts = (
        (preset.data.source, len(samples.source_items)),
        (preset.data.target, len(samples.target_items) if samples.target is not None else 0),
    )
    total = sum(
        views * count * bytes_an_image(encoder, domain.size) for domain, count in counts if count
    )
    folder = run.folder / FEATURES / weights_hash(model.backbone.state_dict())
    folder.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if total - there > free:
        raise FgdaError(
            f"run.cache_features takes {_size(total)} in {folder}, and {_size(free)} are free there"
        )
    reporter.say(f"features of the frozen encoder: up to {_size(total)} in {folder}")
    return FeatureCache(folder)


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"
