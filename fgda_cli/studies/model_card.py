"""`fgda card`: gathers what a card tells, evaluates where labels are at hand, writes both files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.layouts import all_layouts
from ..data.store import open_anywhere
from ..inference.card_content import card_markdown, make_card
from ..inference.counts import Extras
from ..models.checkpoint import load, model_of, weights_hash
from ..runtime.devices import Precision
from ..runtime.errors import FgdaError
from ..runtime.files import write_json, write_text
from ..runtime.reporter import Reporter
from ..runtime.written import Written
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
