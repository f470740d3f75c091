"""Every twenty-fourth case of the fuzz suite and all kinds; `make trust` runs all suites, which
takes half an hour.
"""

from __future__ import annotations

import os

import pytest

from tests.trust.suites import run
from tests.trust.world import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    os.environ["OPENCV_LOG_LEVEL"] = "OFF"
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(("name", "every", "least"), [("fuzz", 24, 30), ("kinds", 1, 60)])
def test_malformed_input_ends_in_a_clear_line_and_the_right_code(world, name, every, least):
    count, failures = run(name, world, every=every)
    assert not failures, "\n".join(failures)
    assert count >= least
