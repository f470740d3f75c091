"""Everything that may go wrong, done on purpose: `make trust`, or `python -m tests.trust [SUITE…]
[--only TEXT]`.

`faults` kills, stops, starves and breaks real processes. `fuzz` feeds malformed files and words to
the command line. `kinds` repeats what was once wrong in silence. `exports` writes every kind of
network as ONNX, OpenVINO and TorchScript. Each failure is printed, then the counts; the exit code
is 1 when anything failed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
# as fgda's own processes do, before cv2 is imported
os.environ["OPENCV_LOG_LEVEL"] = "OFF"

from tests.trust.suites import SUITES, run
from tests.trust.world import make_world


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="default: all")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    arguments = parser.parse_args()
    # a shell's background jobs ignore it, and so would what they start
    signal.signal(signal.SIGINT, signal.default_int_handler)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        world = make_world(Path(folder))
        for name in arguments.suites or SUITES:
            start = time.monotonic()
            count, failures = run(name, world, arguments.only)
            print(
                f"{name}: {count} cases, {len(failures)} failures,"
                f" {time.monotonic() - start:.0f} s",
                flush=True,
            )
            failed += len(failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
