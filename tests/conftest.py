"""Shared fixtures: one small prepared playground a test session, and a preset that trains on it in
seconds.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# bit-identity is promised at one thread count
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fgda_cli.data import playground
from fgda_cli.data.prepare import How, prepare_layout
from fgda_cli.presets import load_preset
from fgda_cli.training import stages, validation
from tests import pretend  # noqa: F401 - its device is there before anything is trained
from tests.helpers import QUIET, TINY

# a verdict looks at few frames here
validation.FRAMES = 3
# bytes that a run of all tests may hold at once
NEEDED = 2 << 30


LONGEST = (
    "test_first_hour.py",
    "test_trust.py",
    "test_several_processes.py",
    "test_benchmarks.py",
    "test_transformers.py",
    "test_export.py",
)


def pytest_addoption(parser):
    parser.addoption("--only", default="", help="tests/trust: cases whose name contains this")


def pytest_collection_modifyitems(items):
    """The longest tests first, or one process waits for the other at the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_configure(config):
    """Better a line now than a thousand errors of a full disk."""
    place = tempfile.gettempdir()
    free = shutil.disk_usage(place).free
    if free < NEEDED and not hasattr(config, "workerinput"):
        pytest.exit(
            f"{place} has {free >> 20} MiB free, the tests need {NEEDED >> 20}: set TMPDIR to a"
            " larger disk",
            1,
        )


@pytest.fixture(scope="session")
def raw_playground(tmp_path_factory) -> Path:
    """Both domains in their raw layouts: 10 game scenes, 10 + 3 street scenes."""
    root = tmp_path_factory.mktemp("raw")
    for sheet in playground.sheets(root, seed=0, train=10, val=3):
        playground.write_sheet(sheet)
    return root


@pytest.fixture(scope="session")
def data_root(raw_playground, tmp_path_factory) -> Path:
    """The same, prepared at 64x32."""
    out = tmp_path_factory.mktemp("data")
    how = How(out, (64, 32), 1, reporter=QUIET)
    prepare_layout("gta5", raw_playground / "game", how, name="playground-game")
    prepare_layout("cityscapes", raw_playground / "street", how, name="playground-street")
    return out


@pytest.fixture(scope="session")
def tiny_preset():
    def make(*overrides: str, method: str | None = None):
        return load_preset("playground", [*TINY, *overrides], method)

    return make


@pytest.fixture(scope="session")
def trained(data_root, tiny_preset, tmp_path_factory) -> Path:
    """final.pth of a short pretrain."""
    job = stages.Job(
        tiny_preset(),
        data_root,
        tmp_path_factory.mktemp("trained") / "run",
        device="cpu",
        reporter=QUIET,
    )
    return stages.pretrain(job)
