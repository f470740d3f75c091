"""The presets' settings beside those of the authors' codes, as docs/settings.md.

python benchmarks/settings_table.py            # writes the page anew
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml

from fgda_cli.presets import load_preset
from fgda_cli.runtime.files import write_text
from fgda_cli.settings import Preset

HERE = Path(__file__).parent
FACTS = HERE / "published_settings.yaml"
PAGE = HERE.parent / "docs" / "settings.md"
# published figures are rounded
TOLERANCE = 2e-3
HEAD = """# Settings beside the authors' code

This page is for people who check whether a preset trains as its authors do.
`python benchmarks/settings_table.py` makes it from the presets and
`benchmarks/published_settings.yaml`; a test holds both together.
Each value was read in the authors' repository at the commit that is named, in November 2026.
Where ours differs, the last column says why.
"""


def ours(preset: Preset, key: str) -> Any:
    """Return a key's value in a resolved preset; `a * b` is a product of keys or numbers, rounded
    to whole numbers where it is a list.
    """
    values = [_one(preset, part) for part in key.split(" * ")]
    if len(values) == 1:
        return values[0]
    if isinstance(values[0], (list, tuple)):
        return [round(value * values[1]) for value in values[0]]
    return math.prod(values)


def _one(preset: Preset, key: str) -> Any:
    if key == "model classes":
        return 19
    if key.replace(".", "").isdigit():
        return float(key)
    value: Any = preset
    for part in key.split("."):
        value = getattr(value, part)
    return value


def agree(published: Any, own: Any) -> bool:
    """Return whether two values are the same, numbers to rounding."""
    if isinstance(published, (list, tuple)) and isinstance(own, (list, tuple)):
        return len(published) == len(own) and all(map(agree, published, own))
    if isinstance(published, str) and not isinstance(own, str):
        return _number(published) is not None and agree(_number(published), own)
    if isinstance(published, (bool, str)) or own is None:
        return published == own
    return math.isclose(published, own, rel_tol=TOLERANCE)


def _number(text: str) -> float | None:
    # YAML 1.1 reads 5e-4 as a text
    try:
        return float(text)
    except ValueError:
        return None


def rows_of(name: str, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a preset: key, published value, where it stands, ours, and why it
    differs.
    """
    preset = load_preset(name)
    rows = []
    for key, published, where, *why in facts["rows"]:
        own = ours(preset, key)
        rows.append(
            {
                "key": key,
                "published": published,
                "where": where,
                "ours": own,
                "agrees": agree(published, own),
                "why": why[0] if why else "",
            }
        )
    return rows


def shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    number = _number(value) if isinstance(value, str) else value
    return str(value) if number is None or isinstance(number, int) else f"{number:.4g}"


def page(facts: dict[str, Any]) -> str:
    lines = [HEAD]
    for name, of_preset in facts.items():
        lines += [f"## {name}", "", f"Code: {of_preset['code']}.", ""]
        lines += [
            "| setting | published | where | ours | why it differs |",
            "|---|---|---|---|---|",
        ]
        for row in rows_of(name, of_preset):
            cells = (
                f"`{row['key']}`",
                shown(row["published"]),
                row["where"],
                shown(row["ours"]),
                row["why"],
            )
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def facts() -> dict[str, Any]:
    return yaml.safe_load(FACTS.read_text(encoding="utf-8"))


if __name__ == "__main__":
    write_text(PAGE, page(facts()))
