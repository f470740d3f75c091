"""The fuzz suite as people run it; the faults, which take minutes, are run by hand (benchmarks/trust.py)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks/trust.py"


def test_malformed_input_ends_in_a_clear_line_and_the_right_code():
    done = subprocess.run([sys.executable, SCRIPT, "fuzz", "kinds"], capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    (count,) = re.findall(r"fuzz: (\d+) cases, 0 failures", done.stdout)
    assert int(count) >= 500
    (count,) = re.findall(r"kinds: (\d+) cases, 0 failures", done.stdout)
    assert int(count) >= 60
