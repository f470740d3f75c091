"""The page of a training run, and how reports are written."""

from __future__ import annotations

from pathlib import Path

from ..metrics import SCORES
from ..runtime.errors import FgdaError
from ..runtime.files import write_text
from ..runtime.record import METRICS, RECORD, measurements
from ..runtime.reporter import Reporter
from ..runtime.text import BadText, parse_yaml, read_text
from ..runtime.written import Written, own_files
from ..visual import html
from ..visual.plots import curves

# the page in the folder of `--report`
INDEX = "index.html"


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


def check_page(report: Path | None) -> None:
    """Raise UsageError before work begins where a person has a page in a report's folder."""
    if report is not None:
        Written(report).check((INDEX,))


def write_page(report: Path, page: str, reporter: Reporter) -> None:
    """Write the page of a report's folder. Raises UsageError for one that a person made or
    changed.
    """
    path = report / INDEX
    with own_files(path):
        write_text(path, page)
    reporter.say(f"report: {path}")
