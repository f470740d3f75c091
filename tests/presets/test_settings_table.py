"""The presets of published methods against the authors' own settings
(benchmarks/published_settings.yaml).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import benchmark

ROOT = Path(__file__).parents[2]


TABLE = benchmark("settings_table")
FACTS = TABLE.facts()


@pytest.mark.parametrize("preset", FACTS)
def test_a_setting_is_as_published_or_says_why_not(preset):
    rows = TABLE.rows_of(preset, FACTS[preset])
    assert [row for row in rows if not row["agrees"] and not row["why"]] == []
    # a reason that is no longer needed
    assert [row["key"] for row in rows if row["agrees"] and row["why"]] == []
    assert all(row["where"] for row in rows)


def test_the_page_is_what_the_script_writes():
    again = "python benchmarks/settings_table.py writes it anew"
    assert TABLE.PAGE.read_text(encoding="utf-8") == TABLE.page(FACTS), again


def test_every_preset_of_published_settings_is_in_the_table():
    presets = {path.stem for path in (ROOT / "presets").glob("*2city*.yaml")}
    # combinations of ours, which no authors published
    without = {name for name in presets - FACTS.keys() if "-dinov" not in name}
    # what only names another data set
    assert without == {"synthia2city-adaptsegnet", "synthia2city-advent"}, without
