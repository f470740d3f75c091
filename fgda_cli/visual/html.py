"""Self-contained HTML pages: styles, pictures and the viewer's script inside, nothing loaded from
elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.geometry import resize_image
from .iou_tables import columns_of
from .tables import show


def page(title: str, facts: Iterable[str], *sections: str, script: str = "") -> str:
    """Return a whole document; `facts` stand below the title, sections are HTML. `script` is the
    only one that the page runs.
    """
    head = (
        "<!doctype html>\n<html lang='en'><head><meta"
        f" charset='utf-8'><title>{escape(title)}</title>"
    )
    view = f"<meta name='viewport' content='width=device-width'>{policy(script)}"
    style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
    line = " · ".join(escape(str(fact)) for fact in facts)
    body = f"<h1>{escape(title)}</h1><p class='facts'>{line}</p>" + "\n".join(sections)
    run = f"<script>{script}</script>" if script else ""
    return f"{head}{view}<style>{style}</style></head><body>{body}{run}</body></html>\n"


def policy(script: str) -> str:
    """Return the tag by which a browser loads nothing from elsewhere and runs no script but this
    one.
    """
    allowed = "'none'"
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed = f"'sha256-{digest}'"
    rules = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed};"
        " base-uri 'none'; form-action 'none'"
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def section(title: str, content: str, note: str = "") -> str:
    return (
        f"<h2>{escape(title)}</h2>"
        + (f"<p class='facts'>{escape(note)}</p>" if note else "")
        + content
    )


def cards(values: dict[str, str]) -> str:
    """Return large figures with their names below."""
    return (
        "<div class='cards'>"
        + "".join(
            f"<div class='card'><b>{escape(v)}</b>{escape(k)}</div>" for k, v in values.items()
        )
        + "</div>"
    )


def table(headings: Iterable[str], rows: Iterable[Iterable[str]], kinds: Iterable[str] = ()) -> str:
    """Return a table of cells that are HTML. `kinds` has a class of style.css for the last columns:
    `words`, `track` (a bar) or `span` (an interval).
    """
    headings = list(headings)
    kinds = list(kinds)
    kinds = [""] * (len(headings) - len(kinds)) + kinds

    def line(tag: str, cells: Iterable[str]) -> str:
        parts = (
            f"<{tag} class='{kind}'>{cell}</{tag}>" if kind else f"<{tag}>{cell}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )
        return f"<tr>{''.join(parts)}</tr>"

    body = "".join(line("td", row) for row in rows)
    wide = " class='wide'" if any(kinds) else ""
    return f"<table{wide}><thead>{line('th', headings)}</thead><tbody>{body}</tbody></table>"


def class_bar(percent: float, colour: tuple[int, int, int]) -> str:
    """Return a bar of 2.2 pixels a percent in a class's colour."""
    return (
        f"<span class='bar' style='width:{2.2 * percent:.0f}px;background:rgb{tuple(colour)}'>"
        "</span>"
    )


def swatch(colour: tuple[int, int, int]) -> str:
    return f"<i class='swatch' style='background:rgb{tuple(colour)}'></i>"


def change_bar(value: float, low: float, high: float, colour: str) -> str:
    """Return an SVG bar from the middle to `value` in [-1, 1], with a line from `low` to `high`."""
    middle = 110
    reach = 105
    left, right = sorted((middle, middle + value * reach))
    line = (
        f"<line x1='{middle + low * reach:.1f}' x2='{middle + high * reach:.1f}' y1='6' y2='6'"
        " stroke='#1d2733'/>"
    )
    bar = f"<rect x='{left:.1f}' y='2' width='{right - left:.1f}' height='8' fill='{colour}'/>"
    axis = f"<line x1='{middle}' x2='{middle}' y1='0' y2='12' stroke='#9aa5b1'/>"
    return f"<svg width='220' height='12' role='img'>{bar}{axis}{line}</svg>"


def iou_rows(result: dict[str, Any], palette: tuple[tuple[int, int, int], ...]) -> str:
    """Return a table: class, IoU as number and bar, share of the true pixels."""
    confusion = np.array(result["confusion"], np.int64)
    columns = columns_of(result)
    shares = 100 * confusion.sum(1) / max(confusion.sum(), 1)
    rows = []
    for name, colour, share in zip(result["classes"], palette, shares, strict=True):
        value = result["iou"][name]
        rows.append(
            [
                f"{swatch(colour)}{escape(name)}",
                show(value),
                *(column.of_class(name) for column in columns),
                f"{share:.2f}",
                class_bar(value or 0, colour),
            ]
        )
    heads = ["class", "IoU %", *(column.heading for column in columns), "pixels %", ""]
    return table(heads, rows, kinds=["track"])


def confusion_heat(result: dict[str, Any]) -> str:
    """Return the confusion matrix in percent of each row: rows are the truth, columns the
    prediction; darker is more.
    """
    counts = np.array(result["confusion"], np.int64)
    names = result["classes"]
    totals = counts.sum(1, keepdims=True)
    percent = 100 * counts / np.maximum(totals, 1)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    rows = []
    for index, name in enumerate(names):
        cells = "".join(
            _heat_cell(
                percent[index, k], counts[index, k], name, predicted=names[k], right=k == index
            )
            for k in range(len(names))
        )
        rows.append(f"<tr><th>{escape(name)}</th>{cells}</tr>")
    return (
        f"<div class='scroll'><table class='confusion'><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _heat_cell(percent: float, count: int, truth: str, predicted: str, right: bool) -> str:
    tint, strength = ("34,113,177", percent) if right else ("196,60,40", min(100.0, 1.6 * percent))
    colour = "#fff" if strength > 55 else "#1d2733"
    text = "" if percent < 0.5 else f"{percent:.0f}"
    title = escape(f"{truth} seen as {predicted}: {count} pixels, {percent:.2f} %", quote=True)
    return (
        f"<td title='{title}'"
        f" style='background:rgba({tint},{strength / 100:.2f});color:{colour}'>{text}</td>"
    )


def image(picture: np.ndarray, caption: str, widest: int = 640) -> str:
    """Return a figure with the RGB photograph inside the page, as JPEG."""
    if picture.shape[1] > widest:
        size = (widest, max(1, round(picture.shape[0] * widest / picture.shape[1])))
        picture = resize_image(picture, size)
    _, buffer = cv2.imencode(".jpg", cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR))
    source = f"data:image/jpeg;base64,{base64.b64encode(buffer.tobytes()).decode()}"
    return (
        f"<figure><img tabindex='0' alt='{escape(caption, quote=True)}'"
        f" src='{source}'><figcaption>{escape(caption)}</figcaption></figure>"
    )


def scene(name: str, score: str, figures: list[str]) -> str:
    return (
        f"<div class='scene'><p class='facts'><b>{escape(name)}</b> ·"
        f" {escape(score)}</p><div>{''.join(figures)}</div></div>"
    )


def figure_svg(figure) -> str:
    """Return a matplotlib figure as SVG inside the page."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
