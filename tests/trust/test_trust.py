"""Everything that may go wrong, done on purpose: `make trust` runs all of it, which takes a quarter
of an hour; `make test` runs all kinds and every twenty-fourth case of fuzz.

`faults` kills, stops, starves and breaks real processes. `fuzz` feeds malformed files and words to
the command line. `kinds` repeats what was once wrong in silence. `exports` writes every kind of
network as ONNX, OpenVINO and TorchScript. `--only TEXT` runs the cases whose name contains it.
"""

from __future__ import annotations

import os
import shutil
import signal

import pytest

from tests.trust import exports, faults, fuzz, kinds
from tests.trust.world import make_world

# of one case
MOST_SECONDS = 100


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    # as fgda's own processes do
    os.environ["OPENCV_LOG_LEVEL"] = "OFF"
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def signals():
    """Interrupts as in a terminal (a shell's background jobs ignore them, and so would what they
    start), and an end to each case.
    """

    def too_slow(_signum, _frame):
        raise AssertionError(f"took more than {MOST_SECONDS} s")

    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    alarm = signal.signal(signal.SIGALRM, too_slow)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGALRM, alarm)


@pytest.mark.parametrize(
    "suite, every, least",
    [
        (kinds, 1, 60),
        (fuzz, 24, 30),
        pytest.param(fuzz, 1, 700, marks=pytest.mark.slow),
        pytest.param(faults, 1, 40, marks=pytest.mark.slow),
        pytest.param(exports, 1, 35, marks=pytest.mark.slow),
    ],
    ids=["kinds", "part of fuzz", "fuzz", "faults", "exports"],
)
def test_what_goes_wrong_ends_in_a_clear_line_and_the_right_code(
    suite, every, least, world, signals, subtests, request
):
    only = request.config.getoption("--only")
    count = 0
    for number, (label, case) in enumerate(suite.cases(world)):
        if only not in label or number % every:
            continue
        count += 1
        signal.alarm(MOST_SECONDS)
        with subtests.test(label):
            case()
        signal.alarm(0)
        if suite is not faults:
            shutil.rmtree(world.root / "cases", ignore_errors=True)
    assert count >= least or only
