"""The facts of a model card: what a checkpoint is, made of what data and settings, how good, under
which licences.
"""

from __future__ import annotations

from typing import Any

from ..models.encoders import family

UNKNOWN = "not known"
LIMITS = (
    (
        "Figures are of the split named above; on other footage it may do worse. Nothing here says"
        " that it is safe to steer by."
    ),
    (
        "A verdict without labels is an estimate (docs/judging.md); on domains that it was not"
        " fitted on it may be wrong."
    ),
)


def make_card(
    info: dict[str, Any],
    evaluation: dict[str, Any] | None = None,
    licences: dict[str, str] | None = None,
    weights_hash: str | None = None,
) -> dict[str, Any]:
    """Return a card's tree from a checkpoint's own facts, and from its `evaluate` with intervals
    and calibration.
    """
    from .._version import __version__

    preset = info["preset"]
    is_import = info["stage"] == "import"
    pixels = [] if is_import else info.get("pixels") or []
    model = preset["model"]
    data = preset["data"]
    described = getattr(
        family(model["backbone"]), "describe_weights", lambda name: {"licence": None}
    )(model["backbone"])
    return {
        "name": (
            f"imported-{info['method']}"
            if is_import
            else f"{preset['name']}-{info['method']}-seed{preset['run']['seed']}"
        ),
        "made_by": f"fgda {__version__}",
        "weights_hash": weights_hash,
        "task": (
            "semantic segmentation of street scenes, adapted without labels of the target"
            if info["stage"] == "adapt" and data["target"].get("labelled") is None
            else "semantic segmentation of street scenes"
        ),
        "classes": list(info["classes"].names),
        "input": (
            f"RGB, {info['input'].size[0]}x{info['input'].size[1]} (aspects: docs/input-size.md)"
        ),
        "architecture": {
            "backbone": model["backbone"],
            "head": model["head"],
            "weights_from": UNKNOWN if is_import else model["weights"],
            "weights_licence": (
                None if is_import or model["weights"] == "none" else described.get("licence")
            ),
        },
        "training": {
            "stage": info["stage"],
            "method": info["method"],
            "iteration": info["iteration"],
            **(_not_told(info) if is_import else _told(preset)),
            "pixels": [
                dict(zip(("domain", "dataset", "split", "pixels"), facts, strict=True))
                for facts in pixels
            ],
        },
        "data_licences": {} if is_import else licences or {},
        "validation_in_training": info.get("metrics") or {},
        "evaluation": evaluation,
        "verdict_without_labels": info.get("verdict"),
        "limits": list(LIMITS),
    }


def _told(preset: dict[str, Any]) -> dict[str, Any]:
    """Return what a run of ours records about its training."""
    data = preset["data"]
    return {
        "seed": preset["run"]["seed"],
        "source": data["source"]["dataset"],
        "target": data["target"]["dataset"],
        "target_labels": data["target"].get("labelled") or "none",
        "settings": preset,
    }


def _not_told(info: dict[str, Any]) -> dict[str, Any]:
    """Return the note for a published file, which records nothing about its training."""
    unknown = dict.fromkeys(("seed", "source", "target", "target_labels"), UNKNOWN)
    return unknown | {
        "settings": None,
        "origin": f"{info['method']} checkpoint {info.get('origin') or ''}".strip(),
    }
