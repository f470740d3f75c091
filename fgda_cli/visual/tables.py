"""Tables for the terminal, at most 80 columns wide."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from ..data.geometry import typed_pair
from ..metrics import COLLAPSED
from ..runtime.text import visible

if TYPE_CHECKING:
    from ..data.layouts.base import About


def under(title: str, table, below: str = ""):
    """Return a table between lines of its own width, because rich breaks titles and captions at the
    table's width.
    """
    from rich.console import Group
    from rich.text import Text

    return Group(Text(title, style="italic"), table, *([Text(below)] if below else []))


def show(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def signed(score: float | None) -> str:
    """Return a label-free score as text with its sign."""
    if score is None:
        return "–"
    return "collapsed" if score <= COLLAPSED else f"{score:+.1f}"


def show_interval(bounds: tuple[float, float] | None) -> str:
    return "–" if bounds is None else f"{bounds[0]:.1f}–{bounds[1]:.1f}"


def ablation_table(summary: dict[str, Any]):
    """Return mean and spread by method, beside the paper's figure if it has one."""
    from rich.table import Table

    table = Table()
    headings = (
        ("method", "left"),
        ("mean", "right"),
        ("± sd", "right"),
        ("gain", "right"),
        ("seeds", "left"),
        ("no labels", "right"),
        ("paper", "right"),
    )
    with_gap = any("gap_closed" in row for row in summary["rows"])
    headings += (("gap closed %", "right"),) if with_gap else ()
    for heading, justify in headings:
        table.add_column(heading, justify=justify, overflow="fold")
    for row in summary["rows"]:
        seeds = " ".join(f"{value:.1f}" for value in row["seeds"].values())
        table.add_row(
            row["method"],
            show(row["mean"]),
            show(row["spread"]),
            gain_text(row),
            seeds,
            signed(row.get("label_free")),
            paper_text(row, summary),
            *([show(row.get("gap_closed"))] if with_gap else []),
        )
    below = [*footnotes(summary), *harms(summary)]
    if any(row["gain"] is not None for row in summary["rows"]):
        below.insert(0, "gain: points over source-only of the same seed")
    if summary.get("ranked_by") == "label-free":
        below.insert(0, "in the order of the score without labels (points of mIoU to expect)")
    return under(f"{summary['preset']}: {summary['metric']} by method", table, "\n".join(below))


def gain_text(row: dict[str, Any]) -> str:
    """Return what a row has more than source-only of the same seed: mean ± standard deviation."""
    gain = row["gain"]
    if gain is None:
        return "–"
    spread = "" if gain["spread"] is None else f" ± {gain['spread']:.1f}"
    return f"{gain['mean']:+.1f}{spread}"


def paper_text(row: dict[str, Any], summary: dict[str, Any]) -> str:
    """Return the paper's figure, marked when it was not made as ours is."""
    return show(row["paper"]) + _mark(row, summary)


def _mark(row: dict[str, Any], summary: dict[str, Any]) -> str:
    noted = [other["method"] for other in summary["rows"] if other["note"]]
    return f" [{noted.index(row['method']) + 1}]" if row["note"] else ""


def footnotes(summary: dict[str, Any]) -> list[str]:
    """Return notes on the marked figures, one line each."""
    return [
        f"{_mark(row, summary).strip()} {row['method']}: {row['note']}"
        for row in summary["rows"]
        if row["note"]
    ]


def harms(summary: dict[str, Any], least: float = 0.5) -> list[str]:
    """Return the methods that are worse than source-only, one line each, with the classes that lose
    most.
    """
    rows = {row["method"]: row for row in summary["rows"]}
    start = rows.get("source-only")
    if start is None or start["mean"] is None:
        return []
    lines = []
    for method, row in rows.items():
        if row["mean"] is None or row["mean"] > start["mean"] - least:
            continue
        changes = {
            name: value - start["iou"][name]
            for name, value in row["iou"].items()
            if value is not None and start["iou"].get(name) is not None
        }
        worst = [
            f"{name} {changes[name]:+.1f}"
            for name in sorted(changes, key=changes.__getitem__)[:3]
            if changes[name] < 0
        ]
        which = f": {', '.join(worst)}" if worst else ""
        lines.append(f"{method} is {start['mean'] - row['mean']:.1f} below source-only{which}")
    return lines


def prepared_table(summary):
    """Return what `prepare` found in the labels, and why files were refused."""
    from rich.table import Table

    table = Table(show_header=False)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    for split, share in summary.labelled.items():
        absent = ", ".join(summary.absent[split]) or "none"
        table.add_row(f"{split}: labelled pixels", f"{share:.1f} %")
        table.add_row(f"{split}: classes without a pixel", absent)
    for reason, count in summary.reasons.items():
        table.add_row(f"refused: {count}", reason)
    return table


def backbone_table(rows: list[dict[str, Any]]):
    """Return encoders, one a row; a model that cannot be used says why."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model.backbone", no_wrap=True)
    for heading, justify in (
        ("M par.", "right"),
        ("strides", "left"),
        ("weights", "left"),
        ("licence", "left"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")
    for row in rows:
        if row["problem"]:
            table.add_row(row["name"], "–", row["problem"], "", "")
            continue
        strides = ", ".join(map(str, dict.fromkeys(row["strides"])))
        table.add_row(
            row["name"], f"{row['parameters']:.1f}", strides, row["weights"], row["licence"] or "–"
        )
    return table


def zoo_table(rows: list[dict[str, Any]]):
    """Return published checkpoints, one a row; below are notes, pages, licences and the commands of
    evaluation by method; "–" is not on the authors' page.
    """
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    notes = list(dict.fromkeys(row["note"] for row in rows if row["note"]))
    marks = {note: f" ({number})" for number, note in enumerate(notes, 1)}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("name", no_wrap=True)
    for heading in ("from", "to", "mIoU", "here"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        miou = "–" if row["miou"] is None else f"{row['miou']:.1f}"
        table.add_row(
            row["name"],
            row["source"],
            row["target"],
            miou + marks.get(row["note"], ""),
            "yes" if row["here"] else "",
        )
    facts = ("method", "page", "seen", "code", "weights", "protocol")
    about = {tuple(row[fact] for fact in facts): None for row in rows}
    lines = [f"{mark.strip()} {note}" for note, mark in marks.items()] + [
        "",
        "Where from (the commit that was read), licences, and how to evaluate as the authors do:",
    ]
    lines += [
        f"{method}: {page} ({seen})\n  code: {code}\n  weights: {weights}\n  {protocol}"
        for method, page, seen, code, weights, protocol in about
    ]
    return Group(table, *(Text(line) for line in lines))


def layouts_list(layouts: dict[str, About]) -> str:
    """Return what `prepare --list` prints: a few lines a data set, at most 80 columns wide."""
    import textwrap

    lines = []
    for name, layout in layouts.items():
        size = getattr(layout, "size", None)
        how = (
            f"prepared at {size[0]}x{size[1]} without --size"
            if size
            else "keeps its size without --size"
        )
        lines.append(f"{name}: {layout.title}, {how}")
        for what in ("needs", "labels", "licence"):
            text = getattr(layout, what)
            lines += textwrap.wrap(
                f"{what:8} {text}", 79, initial_indent="  ", subsequent_indent=" " * 11
            )
    return "\n".join([*lines, "playground: drawn, not downloaded"])


def prepared_list(root: Any, datasets: list[Any]) -> str:
    """Return what `prepare --list` says of the data sets that are prepared: what each split was
    made from, and its hash.
    """
    if not datasets:
        return f"\nprepared in {root}: none"
    lines = ["", f"prepared in {root}:"]
    for dataset in datasets:
        size = "own sizes" if dataset.size is None else "{}x{}".format(*dataset.size)
        lines.append(visible(f"{dataset.folder.name}: {len(dataset.classes)} classes, {size}"))
        for split in dataset.splits():
            made = dataset.made_from(split)
            lines.append(
                f"  {split}: {len(dataset.items(split))} images, pixels {dataset.pixels(split)}"
            )
            if made:
                lines.append(visible(f"    {_command(dataset.folder.name, made)}"))
    return "\n".join(lines)


def _command(name: str, made: dict[str, Any]) -> str:
    """Return the command that prepares such a split, from its record."""
    given = {"name": name, **made.get("raw", {})}
    for option, value in made.get("choice", {}).items():
        # without the option, all is taken
        if value != "all":
            given[option] = value
    given |= made.get("options", {}) | made.get("reading", {})
    words = ["fgda", "prepare", made["reader"]]
    for option, value in given.items():
        if value:
            words += _as_typed(option, value)
    return " ".join(words)


def _as_typed(name: str, value: Any) -> list[str]:
    """An option of `prepare` in the words that give it."""
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return [option]
    if not isinstance(value, list):
        return [option, shlex.quote(str(value))]
    if all(isinstance(part, str) for part in value):
        return [word for part in value for word in (option, shlex.quote(part))]
    return [option, typed_pair(value)]


def ranking_table(result: dict[str, Any], most: int = 15):
    """Return the first frames of a ranking, and how many more there are."""
    from rich.table import Table

    table = Table()
    for heading, justify in (
        ("", "right"),
        ("frame", "left"),
        ("unsure", "right"),
        ("rare", "right"),
        ("new", "right"),
    ):
        table.add_column(heading, justify=justify, overflow="fold")
    for frame in result["frames"][:most]:
        parts = (f"{frame[key]:.2f}" for key in ("uncertainty", "rarity", "novelty"))
        table.add_row(str(frame["rank"]), frame["name"], *parts)
    more = len(result["frames"]) - most
    most_unsure = max((frame["entropy"] for frame in result["frames"]), default=0.0)
    below = (
        f"unsure: the mean entropy, relative to the most unsure frame's {most_unsure:.3f} (at the"
        "\nnetwork's size; the page shows it at the frames' own)"
    )
    below += f"\nand {more} more in ranking.json" if more > 0 else ""
    return under(
        f"what to label next, of {result['looked_at']} ({result['near_duplicates']}"
        " near-duplicates)",
        table,
        below,
    )


def verdict_table(frames: str, headings: list[str], results: list[dict[str, Any]]):
    """Return a row a checkpoint: the verdict, the parts of its score, and signals that do not enter
    it.
    """
    from rich.table import Table

    table = Table()
    table.add_column("checkpoint", overflow="fold")
    short = {
        "collapsed or harmful": "harmful",
        "no clear change": "no change",
    }
    for heading in ("verdict", "sure", "score", "edges", "agrees", "distance", "source"):
        table.add_column(heading, justify="left" if heading == "verdict" else "right")
    for heading, result in zip(headings, results, strict=True):
        signals = result["signals"]
        is_base = result["verdict"] == "baseline"
        says_nothing = is_base or result["verdict"] == "cannot tell"
        sure = "" if says_nothing else f"{100 * result['confidence']:.0f} %"
        has_collapsed = not is_base and result["score"] <= COLLAPSED
        score = "" if is_base or has_collapsed else f"{result['score']:+.1f}"
        verdict = "collapsed" if has_collapsed else short.get(result["verdict"], result["verdict"])
        # the parts of the score; a distance may have two digits before the point
        figures = (
            f"{signals['edges']:.3f}",
            f"{signals['steady_scale']:.3f}",
            f"{signals['bn_distance']:.2f}",
        )
        table.add_row(heading, verdict, sure, score, *figures, show(result["source_miou"]))
    return under(
        f"without labels, on {frames}",
        table,
        "score: points of mIoU to expect beyond the baseline\nedges: class borders on edges;"
        " agrees: with the enlarged view;\ndistance: from batch norm's statistics; source: mIoU %"
        " on its labelled images",
    )


def verdict_lines(headings: list[str], results: list[dict[str, Any]]) -> list[str]:
    """Return what a verdict says of classes, and what to do where it cannot tell."""
    lines = [
        f"{heading}: {word}"
        for heading, result in zip(headings, results, strict=True)
        for word in result.get("words", ())
    ]
    if any(result["verdict"] == "cannot tell" for result in results):
        lines.append(
            "cannot tell: look at the frames (--report), or label twenty (fgda rank) and evaluate"
        )
    # docs/judging.md: choosing among good runs by score costs more than averaging them
    if sum(result["verdict"] == "helped" for result in results) > 1:
        lines.append(
            "the score does not tell which of those that helped is best: average them (fgda"
            " predict A.pth footage --with B.pth)"
        )
    return lines


def as_option(advice: str) -> str:
    """Return advice of `gap`, a preset's `KEY=VALUE` or options of `prepare`, as it is typed."""
    return advice if advice.startswith("--") else f"--set {advice}"


def gap_table(result: dict[str, Any]):
    """Return both domains, the differences between them, and what to set."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    one = result["source"]
    two = result["target"]
    figures = result["figures"]
    table = Table()
    table.add_column("", no_wrap=True)
    for side in (one, two):
        table.add_column(side["data"], justify="right", overflow="fold")
    table.add_row("images", str(one["images"]), str(two["images"]))
    table.add_row("size", *("x".join(map(str, side["size"])) for side in (one, two)))
    for name, k in (("brightness", 0), ("green to red", 1), ("blue to yellow", 2)):
        values = (
            f"{side['lab_mean'][k]:.0f} ± {side['lab_deviation'][k]:.0f}" for side in (one, two)
        )
        table.add_row(f"{name} (Lab)", *values)
    within = result["within_target"]
    between = (
        (
            "colours",
            f"{figures['colour_distance']:.2f} deviations apart"
            f" ({within['colour_distance']:.2f} between halves of the target)",
        ),
        (
            "fine detail",
            f"source {figures['sharpness_db']:+.1f} dB"
            f" ({within['sharpness_db']:+.1f} between halves of the target)",
        ),
        (
            "layout by height",
            f"correlation {figures['layout_correlation']:.2f} at a shift of"
            f" {100 * figures['horizon_shift']:+.0f} %"
            f" ({within['layout_correlation']:.2f} between halves)",
        ),
        (
            "classes",
            f"shares {figures['class_distance']:.2f} apart (of 1), by {result['expected_by']}",
        ),
    )
    lines = [Text(f"{name}: {value}") for name, value in between]
    advice = Table(show_header=False, box=None, padding=(0, 1, 0, 0))
    advice.add_column("", no_wrap=True)
    advice.add_column("", overflow="fold")
    for entry in result["advice"]:
        advice.add_row(as_option(entry["set"]), entry["why"])
    if not result["advice"]:
        advice.add_row("nothing more than the preset has", "")
    return Group(
        table,
        *lines,
        Text("\nwhat to set (rules of thumb; fgda verdict tells afterwards whether it helped)"),
        advice,
    )


def status_table(runs: list[dict[str, Any]], below):
    """Return a table for each folder of runs: how far each is, its last score, its state, and when
    it wrote last.
    """
    from itertools import groupby

    from rich.console import Group

    def heading(run: dict[str, Any]) -> str:
        where = run["folder"].removeprefix(f"{below}/").rpartition("/")[0]
        return " ".join(part for part in (where, _in_brackets(run["preset"], where)) if part)

    return Group(*(_runs_table(title, list(own)) for title, own in groupby(runs, heading)))


def _runs_table(heading: str, runs: list[dict[str, Any]]):
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(heading)), title_justify="left", title_style="bold")
    for title, justify in (
        ("run", "left"),
        ("iteration", "right"),
        ("left, or last log", "right"),
        ("last score", "left"),
        ("state", "left"),
    ):
        whole = title in ("iteration", "last score")
        table.add_column(title, justify=justify, overflow="fold", no_wrap=whole)
    for run in runs:
        name = run["folder"].rpartition("/")[2]
        seconds = run["seconds"]
        left = None if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"
        how_far = f"{run['iteration']}/{run['iterations']}" if run["iterations"] else ""
        state = run["state"] + (f", {run['verdict']}" if run["verdict"] else "")
        own = "" if run["method"] in name else f" ({run['method']})"
        run_name = Text(f"{visible(name)}{own}")
        table.add_row(run_name, how_far, left or run["logged"], run["score"], state)
    return table


def _in_brackets(preset: str, where: str) -> str:
    """The name of a run's preset, unless its folder tells it."""
    return "" if not preset or preset == where.rpartition("/")[2] else f"(preset {preset})"


def memory_table(name: str, stages: dict[str, dict[str, int]]):
    """Return the memory of a preset's stages, in GB, by what it is for; `stages` has bytes by
    heading.
    """
    from rich.table import Table

    table = Table()
    rows = (
        ("model", "network"),
        ("others", "teacher, discriminators, references"),
        ("gradients", "gradients"),
        ("optimizers", "optimisers"),
        ("activations", "kept for the backward passes"),
        ("peak", "peak"),
    )
    table.add_column("GB, in fp32", no_wrap=True)
    for heading in stages:
        table.add_column(heading, justify="right", overflow="fold")
    for key, words in rows:
        if key == "peak":
            table.add_section()
        table.add_row(words, *(f"{memory[key] / 2**30:.2f}" for memory in stages.values()))
    return under(f"{name}: memory of a training step, computed", table)
