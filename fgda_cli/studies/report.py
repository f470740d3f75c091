"""Reports as HTML pages: of an evaluation (classes, confusions, best and worst images), and of a
training run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..data.classes import ClassMatch, ClassSet
from ..data.images import apart
from ..data.store import Item, PreparedDataset
from ..inference.evaluate import EvaluationResult
from ..metrics import MEANS, SCORES
from ..runtime.errors import FgdaError
from ..runtime.files import write_text
from ..runtime.record import METRICS, RECORD, measurements
from ..runtime.text import BadText, parse_yaml, read_text
from ..runtime.written import Written, own_files
from ..visual import html
from ..visual.colour import colourise, error_map
from ..visual.heat import heat
from ..visual.plots import curves, reliability
from ..visual.tables import show
from .kept import KeptPredictions
from .look import LOOK

# best images, and worst
SHOWN = 4


def evaluation_page(
    result: EvaluationResult, dataset: PreparedDataset, kept: KeptPredictions, look: str
) -> str:
    """Return the page of one evaluation, with pictures of the predictions that were scored
    (`kept`); `look` is the path of the page to look around in.
    """
    tree = result.to_json()
    scores = result.counts.scores
    figures = {name: f"{show(tree[key])} %" for key, name in MEANS.items() if tree[key] is not None}
    order = sorted(scores, key=scores.get)
    worst = apart(order, SHOWN, scores)
    best = apart([name for name in order[::-1] if name not in worst], SHOWN, scores)
    items = {item.name: item for item in dataset.items(result.split, labelled=True)}

    def scenes(names: list[str]) -> str:
        return "".join(
            _scene(
                items[name], scores[name], dataset, classes=result.classes, prediction=kept[name]
            )
            for name in names
        )

    how = "Rows are the truth, columns the prediction, percent of each row."
    note = (
        "Each image's mIoU is over the classes that it shows or was given. Errors are red, ignored"
        " pixels black."
    )
    together = "mean of " if len(result.checkpoints) > 1 else ""
    facts = [
        together + ", ".join(result.checkpoints),
        f"{result.info['stage']} {result.info['method']}, iteration {result.info['iteration']}",
        f"{result.dataset} / {result.split}, {result.images} images (pixels {result.data})",
        f"{result.tta.describe()}, protocol {result.protocol}, {result.seconds:.0f} s",
    ]
    return html.page(
        "Evaluation",
        facts,
        html.cards(figures),
        html.look_link(look),
        html.section("IoU by class", html.iou_rows(tree, result.classes.palette)),
        _calibration(tree),
        html.section("Confusions", html.confusion_heat(tree), how),
        html.section("Worst images", scenes(worst), note),
        html.section("Best images", scenes(best)) if best else "",
    )


def _calibration(result: dict[str, Any]) -> str:
    calibration = result.get("calibration")
    if calibration is None:
        return ""
    note = (
        f"Expected calibration error {show(calibration['ece'])} %; bars below the line are too"
        " sure."
    )
    return html.section("Calibration", html.figure_svg(reliability(calibration)), note)


def _scene(
    item: Item,
    score: float,
    dataset: PreparedDataset,
    classes: ClassSet,
    prediction: dict[str, np.ndarray],
) -> str:
    image = np.ascontiguousarray(dataset.image(item))
    truth = ClassMatch(classes, dataset.classes).table()[dataset.label(item)]
    wrong = 100 * float(np.mean(prediction["train_ids"][truth != 255] != truth[truth != 255]))
    figures = [
        html.image(image, "image", photo=True),
        *_maps(truth, prediction, image, classes=classes),
    ]
    return html.scene(
        item.name, f"mIoU {show(score)} %, {wrong:.1f} % of the pixels wrong", figures
    )


def _maps(truth: np.ndarray, prediction: dict, image: np.ndarray, classes: ClassSet) -> list[str]:
    return [
        html.image(colourise(truth, classes), "truth"),
        html.image(colourise(prediction["train_ids"], classes), "prediction"),
        html.image(
            heat(prediction["entropy"]), f"entropy (eq. 4), mean {prediction['entropy'].mean():.2f}"
        ),
        html.image(error_map(image, truth, prediction["train_ids"]), "errors"),
    ]


def run_page(run: Path) -> str:
    """Return the training curves and settings of a run folder as a page. Raises FgdaError for
    another folder, or when nothing was logged yet.
    """
    try:
        settings = read_text(run / RECORD)
        entries = measurements(run)
        stage = parse_yaml(settings)["stage"]
        what = f"{stage['stage']} {stage['method']}"
    except (OSError, ValueError, KeyError, TypeError, BadText) as error:
        raise FgdaError(
            f"{run} is not a run folder: it needs preset.yaml and metrics.jsonl"
        ) from error
    series, count = _series(entries)
    if not series:
        raise FgdaError(f"{run / METRICS} holds no measurement yet")
    last = max(points[-1][0] for group in series.values() for points in group.values())
    finished = "finished" if (run / "checkpoints/final.pth").is_file() else "not finished"
    facts = [str(run), what, f"iteration {last}, {finished}"]
    left_out = len((run / METRICS).read_bytes().splitlines()) - count
    facts += [f"{left_out} lines of {METRICS} are no measurement: left out"] if left_out else []
    best = {
        name: f"{max(value for _, value in points):.1f}{'' if name == 'label_free' else ' %'}"
        for name, points in series.get("validation", {}).items()
    }
    sections = [
        html.section(
            title,
            html.figure_svg(
                curves({SCORES.get(name, name): points for name, points in group.items()})
            ),
        )
        for title, group in series.items()
    ]
    heading = html.cards(
        {f"best {SCORES.get(name, name)} in validation": value for name, value in best.items()}
    )
    return html.page(
        "Training run",
        facts,
        heading,
        *sections,
        html.section("Settings", f"<pre>{html.escape(settings)}</pre>"),
    )


def _series(entries: list[dict]) -> tuple[dict[str, dict[str, list[tuple[int, float]]]], int]:
    """Return the log as {group: {name: [(iteration, value)]}}, and how many of its entries are
    measurements.
    """
    count = 0
    groups: dict[str, dict[str, list[tuple[int, float]]]] = {
        "validation": {},
        "losses": {},
        "learning rate": {},
        "images/s": {},
    }
    for entry in entries:
        try:
            iteration = int(entry.pop("iteration"))
            parts = {
                "validation": entry.pop("validation", {}),
                "learning rate": entry.pop("lr", {}),
            }
            parts["images/s"] = (
                {"images/s": entry.pop("images_per_second")} if "images_per_second" in entry else {}
            )
            parts["losses"] = entry
            values = [
                (group, name, float(value))
                for group, part in parts.items()
                for name, value in part.items()
            ]
        except (ValueError, AttributeError, TypeError, KeyError, OverflowError):
            # another program's line
            continue
        count += 1
        for group, name, value in values:
            groups[group].setdefault(name, []).append((iteration, value))
    return {group: values for group, values in groups.items() if values}, count


def check_pages(report: Path | None, folders: Iterable[str] = ("",)) -> None:
    """Raise UsageError before work begins where a person has a page in a report's folder, or in
    these below it.
    """
    if report is not None:
        for folder in ("", *folders):
            Written(report / folder).check(("index.html", LOOK))


def write_page(path: Path, page: str) -> Path:
    """Write a page of a report. Raises UsageError for one that a person made or changed."""
    with own_files(path):
        write_text(path, page)
    return path
