"""The score's weights, against the runs from which they were made."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fgda_cli.signals.score import WEIGHTS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def verdicts():
    spec = importlib.util.spec_from_file_location("verdicts", BENCHMARKS / "verdicts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_weights_are_those_of_the_kept_runs(verdicts):
    runs = verdicts.pairs_of(verdicts.read(BENCHMARKS / "verdicts.json"))
    finals = [one for one in runs if one["is_final"]]
    assert len(finals) == 47
    assert verdicts.weights_of(finals) == {
        name: pytest.approx(weight, abs=0.06) for name, weight in WEIGHTS.items()
    }
