"""The paper's Table 3 (and the rows of Tables 1 and 2) on any preset: one cell a method and seed,
each resumable.
"""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..data.store import open_dataset, open_domain
from ..inference.evaluate import evaluate_file
from ..methods.registry import method_class
from ..metrics import COLLAPSED
from ..models import checkpoint
from ..presets import load_preset
from ..runtime.devices import make_precision, pick_device
from ..runtime.errors import FgdaError, UsageError
from ..runtime.files import alone_in, write_json, write_text
from ..runtime.reporter import Reporter
from ..settings import Preset
from ..training import stages
from ..visual.plots import bars, label_curves
from ..visual.tables import footnotes, gain_text, harms, paper_text, show, signed
from .published import ROWS, Published, by_name
from .verdict import VerdictOptions, run_verdict, start_of

LABELLED = "data.target.labelled="
SOURCE_ONLY = "source-only"
# plain training on, for as long as adaptation: what a gain is to be measured by
CONTINUED = "source-only+"
# trained on the target's labels: what is left to gain
ORACLE = "oracle"


@dataclass(frozen=True)
class Row:
    """A row of the table: `mic`, `source-only+`, `oracle`, or one with settings of its own,
    `mic+lambda_fd=0+adapt.lr=1e-4`.
    """

    text: str
    # as `text` begins: a method, CONTINUED or ORACLE
    name: str
    # NAME=VALUE each
    settings: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Row:
        """Read a row that is asked for. Raises UsageError for settings that the row does not read,
        and for what would change the source model too, which all rows of a seed share.
        """
        row = cls.recorded(text)
        if row.settings and not row.adapts:
            hint = f"\n{CONTINUED}+NAME=VALUE trains on with it" if row.name == SOURCE_ONLY else ""
            raise UsageError(
                f"--methods {text}: {row.name} adapts nothing, so a row of it has no settings of"
                f" its own (--set changes all rows){hint}"
            )
        for key in row.keys:
            if "=" not in key or not key.startswith(("method.", "adapt.", LABELLED)):
                raise UsageError(
                    f"--methods {text}: a row sets keys of its method, adapt or"
                    " data.target.labelled as NAME=VALUE (else --set)"
                )
        return row

    @classmethod
    def recorded(cls, text: str) -> Row:
        """Read a row of a record as it stands: an earlier version may have taken what is refused
        today.
        """
        is_continued = text == CONTINUED or text.startswith(f"{CONTINUED}+")
        name = CONTINUED if is_continued else text.partition("+")[0]
        return cls(text, name, tuple(text.removeprefix(name).split("+")[1:]))

    @property
    def keys(self) -> list[str]:
        """Return its settings as keys of the preset; those without a section are the method's."""
        return [
            part if "." in part.partition("=")[0] else f"method.{part}" for part in self.settings
        ]

    @property
    def method(self) -> str:
        """Return the name of the method that it trains with."""
        return SOURCE_ONLY if self.name in (CONTINUED, ORACLE) else self.name

    @property
    def adapts(self) -> bool:
        """Return whether it begins from the source model of its seed."""
        return self.name == CONTINUED or method_class(self.method).uses_target

    @property
    def overrides(self) -> list[str]:
        """Return what it changes of the preset."""
        # plain training reads no target, so it cannot be selected by looking at one
        return [*self.keys, "run.select=auto"] if self.name == CONTINUED else self.keys

    @property
    def labels(self) -> str:
        """Return how many target labels it uses, as it was asked for: "0", "20", "all", a file."""
        asked = (part for part in self.settings if part.startswith(LABELLED))
        return next(asked, f"{LABELLED}0").removeprefix(LABELLED)

    @property
    def without_labels(self) -> str:
        others = [part for part in self.settings if not part.startswith(LABELLED)]
        return "+".join((self.name, *others))

    def with_labels(self, labels: str) -> Row:
        """Return the row with this many target labels."""
        if labels == "0" or not method_class(self.method).uses_target:
            return self
        return Row.parse(f"{self.text}+{LABELLED}{labels}")


def run_ablation(
    job: stages.Job, preset_name: str, overrides: list[str], rows: list[Row], seeds: list[int]
) -> dict[str, Any]:
    """Train and evaluate what is missing, write ablation.json after every cell, table and plots at
    the end.

    All rows of a seed begin from the same source model, or from the encoder's weights where
    adapt.start says so. Where run.select is label-free, rows are in the order of their score
    without labels, and the target needs none. Raises UsageError for settings that cannot be, before
    anything is trained.
    """
    starts = []
    for row in rows:
        preset = load_preset(preset_name, [*overrides, *row.overrides], row.method)
        if row.name == ORACLE:
            _check_oracle(job)
        elif row.adapts:
            stages.check_adapt(
                replace(job, preset=preset, reporter=Reporter(quiet=True, warns=False))
            )
            if preset.adapt.start == "pretrain":
                starts = [Row.parse(SOURCE_ONLY)]
    out = job.out or Path("runs") / job.preset.name / "ablation"
    # two at once would train the same cells and write over each other's record
    with alone_in(out):
        # a source model is a row before those that begin from it
        trained = list(dict.fromkeys((*starts, *rows)))
        cells = _run_cells(job, preset_name, overrides, rows=trained, seeds=seeds, out=out)
    asked = [row.text for row in rows]
    chosen = {
        key: cell
        for key, cell in cells.items()
        if cell["seed"] in seeds and cell["method"] in asked
    }
    return _write_tables(job.preset, chosen, out)


def _run_cells(
    job: stages.Job,
    preset_name: str,
    overrides: list[str],
    rows: list[Row],
    seeds: list[int],
    out: Path,
) -> dict[str, dict]:
    """Train and evaluate the rows on each seed; return all cells of the record."""
    by_labels = _is_by_labels(job.preset)
    record = out / "ablation.json"
    cells = _read(record)
    metric = job.preset.data.evaluation.metric
    for seed in seeds:
        for row in rows:
            preset = load_preset(
                preset_name, [*overrides, *row.overrides, f"run.seed={seed}"], row.method
            )
            key = f"{row.text}-seed{seed}"
            job.reporter.say(f"cell {key}")
            final = _train(
                replace(job, preset=preset, reporter=replace(job.reporter, warned=[])),
                out,
                row,
                seed=seed,
            )
            stamp = [final.stat().st_mtime_ns, _data_of(job, preset)]
            if cells.get(key, {}).get("stamp") != stamp:
                cells[key] = {
                    "stamp": stamp,
                    "method": row.text,
                    "seed": seed,
                    "result": _evaluate(job, preset, final, by_labels=by_labels),
                    "verdict": _verdict(job, row, final),
                }
                write_json(record, _summary(job.preset.name, metric, cells, by_labels=by_labels))
    return cells


def _is_by_labels(preset: Preset) -> bool:
    return preset.run.select != "label-free"


def _write_tables(preset: Preset, cells: dict[str, dict], out: Path) -> dict[str, Any]:
    """Write ablation.md and the plots; return the summary of the cells."""
    metric = preset.data.evaluation.metric
    summary = _summary(preset.name, metric, cells, by_labels=_is_by_labels(preset))
    write_text(out / "ablation.md", markdown(summary))
    if any(row["mean"] is not None for row in summary["rows"]):
        bars(
            out / "ablation.png",
            [row for row in summary["rows"] if row["mean"] is not None],
            f"{preset.name}: {metric}",
        )
    curves = curves_of(summary["rows"])
    if curves:
        label_curves(out / "labels.png", curves, f"{preset.name}: {metric}")
    return summary


def curves_of(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of one method by the number of target labels, for methods that have several
    such rows.
    """
    rows_by_method: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        rows_by_method.setdefault(Row.recorded(row["method"]).without_labels, []).append(row)
    curves = {
        name: ones
        for name, ones in rows_by_method.items()
        if any(row["labels"] != "0" for row in ones) and len(ones) > 1
    }
    return {
        name: ones for name, ones in curves.items() if all(row["mean"] is not None for row in ones)
    }


def _check_oracle(job: stages.Job) -> None:
    """Raise UsageError unless the target's training images have labels of the source's classes."""
    source, target = (
        open_domain(job.data_root, domain.dataset)
        for domain in (job.preset.data.source, job.preset.data.target)
    )
    if target.classes.names != source.classes.names:
        raise UsageError(
            f"--methods {ORACLE}: {target.name} has different classes from {source.name}:"
            f" {', '.join(target.classes.names)}\nprepare it with a mapping to the source's:"
            f" {', '.join(source.classes.names)}"
        )
    try:
        target.items("train", labelled=True)
    except FgdaError as error:
        raise UsageError(f"--methods {ORACLE} trains on the target's labels: {error}") from None


def _oracle_preset(preset: Preset) -> Preset:
    """Return the preset with the target in the place of the source."""
    data = preset.data.model_copy(update={"source": preset.data.target.as_source()})
    return preset.model_copy(update={"data": data})


def _train(job: stages.Job, out: Path, row: Row, seed: int) -> Path:
    if row.name == ORACLE:
        return stages.pretrain(
            replace(job, preset=_oracle_preset(job.preset), out=out / f"{ORACLE}-seed{seed}")
        )
    start = None
    if not row.adapts or job.preset.adapt.start == "pretrain":
        start = stages.pretrain(replace(job, out=out / f"{SOURCE_ONLY}-seed{seed}"))
    if not row.adapts:
        return start
    return stages.adapt(replace(job, out=out / f"{row.text}-seed{seed}"), start)


def _evaluate(job: stages.Job, preset, final: Path, by_labels: bool) -> dict[str, Any] | None:
    """The evaluation by labels; None where there are none and none are asked for."""
    wanted = preset.data.evaluation
    try:
        dataset = open_dataset(job.data_root, wanted.dataset)
        dataset.items(wanted.split, labelled=True)
    except FgdaError:
        if by_labels:
            raise
        return None
    precision = make_precision("fp32", pick_device(job.device))
    return evaluate_file(
        final, dataset, wanted.split, precision=precision, reporter=job.reporter
    ).to_json()


def _verdict(job: stages.Job, row: Row, final: Path) -> dict[str, Any] | None:
    """The verdict without labels: that of the run, or of a look now where the run read no target;
    None where no source model came before, or no target is at hand.
    """
    verdict = checkpoint.load(final).get("verdict")
    start = start_of(final) if row.name == CONTINUED else None
    if start is None:
        return verdict
    precision = make_precision("fp32", pick_device(job.device))
    quiet = Reporter(quiet=True, warns=False)
    try:
        study = run_verdict(
            [final],
            [row.text],
            VerdictOptions(job.data_root, baseline=start),
            precision=precision,
            reporter=quiet,
        )
    except FgdaError as error:
        job.reporter.decide(f"no verdict on {row.text}: {str(error).splitlines()[0]}")
        return None
    return study.checkpoints[-1].verdict.to_json()


def _data_of(job: stages.Job, preset: Preset) -> str | None:
    """The hash of the images and labels that a cell is evaluated on; None without any."""
    wanted = preset.data.evaluation
    try:
        return open_dataset(job.data_root, wanted.dataset).pixels(wanted.split)
    except FgdaError:
        return None


def _read(record: Path) -> dict[str, dict]:
    if not record.is_file():
        return {}
    try:
        return json.loads(record.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError) as error:
        raise FgdaError(f"cannot read {record}: delete it to evaluate all cells again") from error


def _summary(
    preset: str, metric: str, cells: dict[str, dict], by_labels: bool = True
) -> dict[str, Any]:
    """Return the table of a record's cells: a row a method, its seeds side by side."""
    by_method: dict[str, list[dict]] = {}
    for cell in cells.values():
        by_method.setdefault(cell["method"], []).append(cell)
    rows = [
        _row(preset, metric, method, sorted(ours, key=lambda cell: cell["seed"]))
        for method, ours in by_method.items()
    ]
    _add_gains(rows)
    if not by_labels:
        rows.sort(
            key=lambda row: -math.inf if row["label_free"] is None else row["label_free"],
            reverse=True,
        )
    return {
        "preset": preset,
        "metric": metric,
        "ranked_by": "labels" if by_labels else "label-free",
        "rows": rows,
        "cells": cells,
    }


def _row(preset: str, metric: str, method: str, cells: list[dict]) -> dict[str, Any]:
    """Return the row of a method from its cells, in the order of their seeds; a cell that failed
    has no result.
    """
    done = [cell for cell in cells if cell["result"] is not None]
    results = [cell["result"] for cell in done]
    scores = {cell["seed"]: _score(cell["result"], metric) for cell in done}
    values = list(scores.values())
    verdicts = [cell["verdict"] for cell in cells if cell.get("verdict")]
    paper = ROWS.get(preset, {}).get(method)
    return {
        "method": method,
        "seeds": scores,
        "mean": statistics.fmean(values) if values else None,
        "spread": _spread(values),
        "labels": Row.recorded(method).labels,
        # nothing changed against itself
        "label_free": 0.0 if method == SOURCE_ONLY else _mean_score(verdicts, len(cells)),
        "verdicts": [verdict["verdict"] for verdict in verdicts],
        "iou": _mean_iou([result.get("iou", {}) for result in results]),
        "paper": paper and paper.miou,
        "note": _note(paper, [cell["result"] for cell in cells]),
        "paper_iou": by_name(preset, paper) if paper else {},
    }


def _add_gains(rows: list[dict[str, Any]]) -> None:
    """Add to each row its gain over source-only, seed by seed, and how much of the distance to the
    oracle it closed, where these rows are there.
    """
    by_method = {row["method"]: row for row in rows}
    start = by_method.get(SOURCE_ONLY, {"seeds": {}, "mean": None})
    most = by_method.get(ORACLE, {"mean": None})
    for row in rows:
        is_start = row["method"] == SOURCE_ONLY
        row["gain"] = None if is_start else _paired(row["seeds"], start["seeds"])
    if start["mean"] is None or most["mean"] is None or most["mean"] == start["mean"]:
        return
    whole = most["mean"] - start["mean"]
    for row in rows:
        gained = None if row["mean"] is None else row["mean"] - start["mean"]
        row["gap_closed"] = None if gained is None else 100 * gained / whole


def _paired(scores: dict[int, float], starts: dict[int, float]) -> dict[str, float | None] | None:
    """The mean and standard deviation over the seeds of what a row has more than source-only has on
    the same seed; None where no seed has both.
    """
    gains = [score - starts[seed] for seed, score in scores.items() if seed in starts]
    if not gains:
        return None
    return {"mean": statistics.fmean(gains), "spread": _spread(gains)}


def _spread(values: list[float]) -> float | None:
    """The standard deviation; None of one value."""
    return statistics.stdev(values) if len(values) > 1 else None


def _note(paper: Published | None, results: list[dict[str, Any] | None]) -> str | None:
    """Return what to know before the paper's figure is set beside ours; where it is another mean,
    with ours over the same classes.
    """
    if paper is None or paper.metric is None:
        return paper and paper.note
    scores = [result.get(paper.metric) for result in results if result is not None]
    known = [score for score in scores if score is not None]
    ours = f", where ours has {statistics.fmean(known):.1f}" if known else ""
    return f"{paper.note}, over {paper.metric.removeprefix('miou')} classes{ours}"


def _score(result: dict[str, Any], metric: str) -> float | None:
    """A cell's score: as in training, mIoU where SYNTHIA's classes are not there."""
    return result["miou"] if result.get(metric) is None else result[metric]


def _mean_score(verdicts: list[dict], seeds: int) -> float | None:
    """The mean score without labels; None where a seed has none (a run of an earlier version). A
    method that collapsed on one seed has collapsed: no mean tells so."""
    if not verdicts or len(verdicts) != seeds:
        return None
    scores = [verdict["score"] for verdict in verdicts]
    return COLLAPSED if min(scores) <= COLLAPSED else statistics.fmean(scores)


def _mean_iou(results: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the mean IoU by class over the seeds in which the class has one."""
    means: dict[str, float | None] = {}
    for name in dict.fromkeys(name for result in results for name in result):
        values = [result[name] for result in results if result.get(name) is not None]
        means[name] = statistics.fmean(values) if values else None
    return means


def markdown(summary: dict[str, Any]) -> str:
    """Return the table as Markdown: mean ± standard deviation over seeds."""
    heads = ["method", "mIoU", "gain by seed", "seeds", "without labels", "paper"]
    with_gap = any("gap_closed" in row for row in summary["rows"])
    heads += ["gap closed, %"] if with_gap else []
    lines = [
        f"# {summary['preset']}: {summary['metric']} by method",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for row in summary["rows"]:
        seeds = ", ".join(f"{seed}: {value:.1f}" for seed, value in row["seeds"].items())
        cells = [
            row["method"],
            mean_text(row),
            gain_text(row),
            seeds,
            signed(row.get("label_free")),
            paper_text(row, summary),
        ]
        cells += [show(row.get("gap_closed"))] if with_gap else []
        lines.append(f"| {' | '.join(cells)} |")
    notes = [*footnotes(summary), *harms(summary)]
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    classes = list(summary["rows"][0]["iou"])
    if classes:
        heads = " | ".join(("method", *classes))
        lines += [
            "",
            "IoU by class, mean over the seeds:",
            "",
            f"| {heads} |",
            "|---" * (len(classes) + 1) + "|",
        ]
        lines += [_class_row(row["method"], row["iou"], classes) for row in summary["rows"]]
        lines += [
            _class_row(f"{row['method']}, paper", row["paper_iou"], classes)
            for row in summary["rows"]
            if row["paper_iou"]
        ]
    return "\n".join(lines) + "\n"


def _class_row(name: str, iou: dict[str, float | None], classes: list[str]) -> str:
    return f"| {name} | {' | '.join(show(iou.get(key)) for key in classes)} |"


def mean_text(row: dict[str, Any]) -> str:
    return show(row["mean"]) + (f" ± {show(row['spread'])}" if row["spread"] is not None else "")
