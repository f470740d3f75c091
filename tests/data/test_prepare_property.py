"""Any sequence of preparations, killed at any moment: the former data set whole, or the new one;
raw files as they were.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import cv2
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fgda_cli.data import cache, images
from fgda_cli.data.layouts.base import OwnFiles
from fgda_cli.data.prepare import How, prepare_own
from fgda_cli.data.store import PreparedDataset
from fgda_cli.runtime import files
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.runtime.reporter import Reporter

IMAGES = 6
MAPPINGS = ("0: road\n1: sky\n", "0: sky\n1: road\n")


class Killed(BaseException):
    """Stands for SIGKILL: no handler of ours runs after it, but those that any exit would run."""


def raw_files(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(IMAGES):
        for folder, pixels in (
            ("images", rng.integers(0, 255, (40, 64, 3))),
            ("labels", rng.integers(0, 2, (40, 64))),
        ):
            path = root / folder / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels.astype(np.uint8))
    for number, text in enumerate(MAPPINGS):
        (root / f"map{number}.yaml").write_text(text)
    return root


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pixels_of(folder: Path) -> dict[str, bytes] | None:
    """Everything that a user of the data set reads; None where there is none. Raises FgdaError
    where it is damaged.
    """
    if not (folder / "manifest.json").is_file():
        return None
    dataset = PreparedDataset(folder)
    return {
        f"{split}/{item.name}/{part}": read(item).tobytes()
        for split in dataset.splits()
        for item in dataset.items(split)
        for part, read in (("image", dataset.image), ("label", dataset.label))
    }


def prepare(raw: Path, out: Path, mapping: int, size: int, hold_out: int) -> None:
    own = OwnFiles(raw / "images", raw / "labels", mapping=raw / f"map{mapping}.yaml")
    how = How(out, (size, 32), 1, reporter=Reporter(quiet=True, warns=False), hold_out=hold_out)
    prepare_own("folder", own, "mine", how=how)


steps = st.tuples(
    st.integers(0, 1),
    st.sampled_from((32, 64)),
    st.sampled_from((20, 40)),
    st.one_of(st.none(), st.integers(0, 45)),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=1, max_size=5))
def test_a_kill_leaves_the_former_or_the_new_data_set_whole(tmp_path_factory, sequence):
    root = tmp_path_factory.mktemp("prepare")
    raw = raw_files(root / "raw")
    out = root / "out"
    before = digest(raw)
    for mapping, size, hold_out, kill_after in sequence:
        wanted = root / "wanted"
        prepare(raw, wanted, mapping, size=size, hold_out=hold_out)
        new = pixels_of(wanted / "mine")
        former = pixels_of(out / "mine")
        shutil.rmtree(wanted)
        with killed_after(kill_after) as count:
            try:
                prepare(raw, out, mapping, size=size, hold_out=hold_out)
            except Killed:
                assert pixels_of(out / "mine") in (former, new)
            else:
                assert pixels_of(out / "mine") == new
        assert count is not None
        assert digest(raw) == before
    shutil.rmtree(root)


class killed_after:  # noqa: N801 - reads as a sentence
    """Raise Killed at the n-th of the moments at which the preparation touches the disk; never
    where n is None.
    """

    def __init__(self, count: int | None):
        self.count = count

    def __enter__(self):
        self.left = self.count
        self.whole = {
            (module, name): getattr(module, name)
            for module, name in (
                (images, "write_bytes"),
                (cache, "append_line"),
                (cache, "write_json"),
                (cache, "_link"),
                (cache, "sweep"),
                (files, "write_bytes"),
            )
        }
        for (module, name), original in self.whole.items():
            setattr(module, name, self.counted(original))
        return self

    def counted(self, original):
        def call(*arguments, **more):
            self.strike()
            result = original(*arguments, **more)
            self.strike()
            return result

        return call

    def strike(self):
        if self.left is None:
            return
        self.left -= 1
        if self.left < 0:
            raise Killed

    def __exit__(self, *_):
        for (module, name), original in self.whole.items():
            setattr(module, name, original)


def test_two_preparations_of_one_name_at_once_are_refused(tmp_path):
    raw = raw_files(tmp_path / "raw")
    prepare(raw, tmp_path / "out", 0, size=64, hold_out=20)
    with files.alone_in(tmp_path / "out/mine"):
        try:
            prepare(raw, tmp_path / "out", 1, size=64, hold_out=20)
        except FgdaError as error:
            assert error.exit_code == 2 and "is at work" in str(error)
        else:
            raise AssertionError("both were at work")
