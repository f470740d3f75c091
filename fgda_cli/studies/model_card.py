"""`fgda card`: gathers what a card tells, evaluates where labels are at hand, writes both files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.layouts import all_layouts
from ..data.store import open_anywhere
from ..inference.card_content import make_card
from ..inference.counts import Extras
from ..metrics import SCORES
from ..models.checkpoint import load, model_of, weights_hash
from ..runtime.devices import Precision
from ..runtime.errors import FgdaError
from ..runtime.files import write_json, write_text
from ..runtime.reporter import Reporter
from ..runtime.written import Written
from ..signals.score import in_words
from ..visual.tables import show
from .evaluation import RESAMPLES, EvaluationOptions, evaluate_all

FILES = ("card.md", "card.json")


def write_card(
    path: Path, out: Path, root: Path, data: str | None, precision: Precision, reporter: Reporter
) -> dict[str, Any]:
    """Write `card.md` and `card.json`; figures have intervals when the evaluation's data set is
    prepared, and their lack is reported.
    """
    written = Written(out)
    written.check(FILES)
    content = load(path)
    model, info = model_of(content, path)
    evaluation = None
    name = data or info["preset"]["data"]["evaluation"]["dataset"]
    try:
        split = info["preset"]["data"]["evaluation"]["split"]
        open_anywhere(root, name).items(split, labelled=True)
    except FgdaError as error:
        reporter.decide(f"the card has no scores: {str(error).splitlines()[0]}")
    else:
        wanted = EvaluationOptions(
            data,
            split,
            root,
            precision=precision,
            extras=Extras(calibration=True, resamples=RESAMPLES),
        )
        _, (result,) = evaluate_all([path], wanted, reporter)
        evaluation = result.to_json()
    card = make_card(
        info, evaluation, licences_of(info["preset"]), weights_hash=weights_hash(content["model"])
    )
    write_text(out / "card.md", card_markdown(card))
    write_json(out / "card.json", card)
    for name in FILES:
        written.done(name)
    return card


def licences_of(preset: dict[str, Any]) -> dict[str, str]:
    """Return the licence of each data set of a preset, from its layout; a data set of the user's
    own gives none.
    """
    known = all_layouts()
    licences = {}
    for domain in ("source", "target"):
        names = preset["data"][domain]["dataset"]
        for name in [names] if isinstance(names, str) else names:
            if name.startswith("playground"):
                licences[name] = "drawn by fgda, none"
            else:
                licences[name] = known[name].licence if name in known else "yours to say"
    return licences


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
