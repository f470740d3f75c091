"""A published checkpoint as one of ours: its weights in a network of the paper's preset."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.geometry import InputRule
from ..models.checkpoint import build_model
from ..models.foreign import read_foreign
from ..presets import load_preset
from ..runtime.errors import FgdaError
from ..runtime.reporter import Reporter

# whose sizes the published networks were trained at
PRESET = "gta2city"


def import_checkpoint(
    path: Path, kind: str, reporter: Reporter = Reporter(), trust: bool = False
) -> dict[str, Any]:
    """Return a checkpoint's content from a foreign file. Raises FgdaError when names or shapes do
    not fit.
    """
    foreign = read_foreign(path, kind, trust)
    for note in foreign.notes:
        reporter.decide(note)
    preset = load_preset(
        PRESET, [f"model.{key}={str(value).lower()}" for key, value in foreign.model_keys.items()]
    )
    model = build_model(preset.model, len(foreign.classes))
    state = foreign.state
    wanted = {key for key in model.state_dict() if not key.startswith("normalise.")}
    absent, unexpected = (
        sorted(key for key in keys if not key.endswith("num_batches_tracked"))
        for keys in (wanted - state.keys(), state.keys() - model.state_dict().keys())
    )
    if absent or unexpected:
        raise FgdaError(
            f"{path}: not a {foreign.kind} {preset.model.backbone}: missing {absent[:2] or 'none'},"
            f" unexpected {unexpected[:2] or 'none'}"
        )
    try:
        model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise FgdaError(f"{path}: {' '.join(str(error).split())[:160]}") from error
    # as their authors resize
    rule = foreign.rule or InputRule(preset.data.evaluation.size, None, "bicubic")
    facts = {"stage": "import", "origin": path.name}
    return {
        **facts,
        "method": foreign.kind,
        "iteration": foreign.iteration,
        "classes": foreign.classes.to_json(),
        "input": rule.to_json(),
        "preset": preset.to_json(),
        "model": model.state_dict(),
    }
