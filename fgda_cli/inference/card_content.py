"""A model card: what a checkpoint is, made of what data and settings, how good, under which
licences; Markdown and JSON.
"""

from __future__ import annotations

from typing import Any

from ..metrics import SCORES
from ..models.encoders import family
from ..signals.score import in_words
from ..visual.tables import show

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


def card_markdown(card: dict[str, Any]) -> str:
    """Return the card as Markdown."""
    training = card["training"]
    architecture = card["architecture"]
    lines = [
        f"# {card['name']}",
        "",
        f"{card['task']}. {card['made_by']}, weights {card['weights_hash'] or 'not hashed'}.",
        "",
        "| | |",
        "|---|---|",
        f"| classes | {', '.join(card['classes'])} |",
        f"| input | {card['input']} |",
        f"| network | {architecture['backbone']}, head {architecture['head']} |",
        f"| began from | {_start(architecture)} |",
        *(
            [
                f"| imported from | {training['origin']}; its authors' pages say how it was"
                " trained, and its licence |"
            ]
            if "origin" in training
            else []
        ),
        (
            f"| method | {training['method']} ({training['stage']}), iteration"
            f" {training['iteration']}, seed {training['seed']} |"
        ),
        f"| source | {_names(training['source'])} |",
        f"| target | {_names(training['target'])}, labels used: {training['target_labels']} |",
        *(
            f"| pixels of {one['dataset']}, {one['split']} ({one['domain']}) | {one['pixels']} |"
            for one in training["pixels"]
        ),
        *(f"| licence of {name} | {text} |" for name, text in card["data_licences"].items()),
        "",
        *_evaluation(card["evaluation"], card["validation_in_training"]),
        *_verdict(card["verdict_without_labels"]),
        "## Limits",
        "",
        *(f"- {limit}" for limit in card["limits"]),
        "",
    ]
    return "\n".join(lines)


def _start(architecture: dict[str, Any]) -> str:
    if architecture["weights_from"] == "none":
        return "random weights"
    return (
        f"{architecture['weights_from']} weights (licence:"
        f" {architecture['weights_licence'] or 'not known'})"
    )


def _names(value: Any) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def _evaluation(result: dict[str, Any] | None, in_training: dict[str, Any]) -> list[str]:
    if result is None:
        shown = ", ".join(
            f"{SCORES.get(name, name)} {value:.1f}" for name, value in in_training.items()
        )
        return [
            "## Figures",
            "",
            f"Not evaluated for this card. Its last validation in training: {shown or 'none'}.",
            "",
        ]
    spans = result.get("intervals") or {"miou": None, "iou": {}}
    lines = [
        "## Figures",
        "",
        (
            f"{result['dataset']} / {result['split']}, {result['images']} images; 95 % intervals"
            " over the images; IoU in percent."
        ),
        "",
        "| class | IoU | 95 % |",
        "|---|---|---|",
    ]
    for name in result["classes"]:
        lines.append(f"| {name} | {show(result['iou'][name])} | {_span(spans['iou'].get(name))} |")
    lines += [f"| **mean** | **{show(result['miou'])}** | {_span(spans['miou'])} |", ""]
    if result.get("calibration"):
        lines += [f"Expected calibration error {show(result['calibration']['ece'])} %.", ""]
    return lines


def _verdict(verdict: dict[str, Any] | None) -> list[str]:
    if verdict is None:
        return []
    words = [f"- {word}" for word in verdict["words"]]
    return ["## Did adaptation help, without labels?", "", f"{in_words(verdict)}.", "", *words, ""]


def _span(bounds: Any) -> str:
    return "–" if not bounds else f"{bounds[0]:.1f} to {bounds[1]:.1f}"
