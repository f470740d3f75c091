"""Everything that may go wrong, done on purpose: `python benchmarks/trust.py [faults] [fuzz] [kinds] [--only TEXT]`.

`faults` kills, stops, starves and breaks real processes; `fuzz` feeds malformed files and words to the command line; `kinds` what
was once wrong in silence.
Prints each failure, then the counts; exit code 1 when anything failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["OPENCV_LOG_LEVEL"] = "OFF"  # as fgda's own processes do, before cv2 is imported
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))

import trust_faults
import trust_fuzz
import trust_kinds
from trust_world import World, make_world

MOST_SECONDS = 100  # of one case
SUITES = {"faults": trust_faults.cases, "fuzz": trust_fuzz.cases, "kinds": trust_kinds.cases}


def too_slow(_signum, _frame):
    raise AssertionError(f"took more than {MOST_SECONDS} s")


def run(name: str, world: World, only: str) -> tuple[int, int]:
    """All cases of a suite, failures printed as they come: how many there were, and how many failed."""
    count = failures = 0
    signal.signal(signal.SIGALRM, too_slow)
    for label, case in SUITES[name](world):
        if only not in label:
            continue
        count += 1
        signal.alarm(MOST_SECONDS)
        try:
            case()
        except Exception as error:  # noqa: BLE001 - a check that breaks is a failure too
            failures += 1
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            print(f"FAILED {label}: {kind}{' '.join(str(error).split())[:600]}", flush=True)
        finally:
            signal.alarm(0)
        shutil.rmtree(world.root / "cases", ignore_errors=True) if name != "faults" else None
    return count, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="default: all")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    arguments = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        for name in arguments.suites or SUITES:
            start = time.monotonic()
            count, failures = run(name, world, arguments.only)
            print(f"{name}: {count} cases, {failures} failures, {time.monotonic() - start:.0f} s", flush=True)
            failed += failures
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
