"""`fgda` with the methods of `benchmarks/methods`, which no one should train a model with.

    python benchmarks/oracle.py adapt --preset carla2kitti -m oracle-teacher \
        --set data.target.labelled=DATASET ...
"""

from __future__ import annotations

from pathlib import Path

import fgda_cli.methods
from fgda_cli.app import run

if __name__ == "__main__":
    fgda_cli.methods.__path__.append(str(Path(__file__).parent / "methods"))
    run()
