"""Run the suites of cases: malformed input (fuzz), what was once wrong in silence (kinds), broken
processes (faults), all networks as files for other runtimes (exports)."""

from __future__ import annotations

import shutil
import signal

from tests.trust import exports, faults, fuzz, kinds
from tests.trust.world import World

MOST_SECONDS = 100  # of one case
SUITES = {
    "faults": faults.cases,
    "fuzz": fuzz.cases,
    "kinds": kinds.cases,
    "exports": exports.cases,
}


def too_slow(_signum, _frame):
    raise AssertionError(f"took more than {MOST_SECONDS} s")


def run(
    name: str, world: World, only: str = "", every: int = 1, first: int = 0
) -> tuple[int, list[str]]:
    """Run every `every`-th case of a suite from number `first` on, whose name contains `only`.

    Failures are printed as they come. Return how many cases ran, and the failures.
    """
    count = 0
    failures = []
    signal.signal(signal.SIGALRM, too_slow)
    for number, (label, case) in enumerate(SUITES[name](world)):
        if only not in label or number % every != first:
            continue
        count += 1
        signal.alarm(MOST_SECONDS)
        try:
            case()
        except Exception as error:  # noqa: BLE001 - a check that breaks is a failure too
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            failures.append(f"{label}: {kind}{' '.join(str(error).split())[:600]}")
            print(f"FAILED {failures[-1]}", flush=True)
        finally:
            signal.alarm(0)
        shutil.rmtree(world.root / "cases", ignore_errors=True) if name != "faults" else None
    return count, failures
