"""The score's weights, against the runs from which they were made."""

from __future__ import annotations

import pytest

from fgda_cli.signals.score import WEIGHTS
from tests.helpers import ROOT, benchmark


def test_the_shipped_weights_are_those_of_the_kept_runs():
    verdicts = benchmark("verdicts")
    runs = verdicts.pairs_of(verdicts.read(ROOT / "benchmarks" / "verdicts.json"))
    finals = [one for one in runs if one["is_final"]]
    assert len(finals) == 47
    assert verdicts.weights_of(finals) == {
        name: pytest.approx(weight, abs=0.06) for name, weight in WEIGHTS.items()
    }
