"""Reports: the page holds what was measured, needs nothing from elsewhere, and a real browser shows
it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from fgda_cli.data.classes import NAMES, PALETTE
from fgda_cli.data.store import open_dataset
from fgda_cli.metrics import ConfusionMatrix
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.studies.report import run_page
from tests.helpers import fgda

BROWSER = (
    shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
)


def screenshot(page: Path, out: Path, height: int) -> np.ndarray:
    """The page as a headless browser draws it, RGB."""
    if BROWSER is None:
        assert "CI" not in os.environ, "CI must have a browser (.ci/run installs chromium)"
        pytest.skip("no chromium on this machine: the page was not opened")
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    )
    profile = f"--user-data-dir={out.parent / 'profile'}"
    size = f"--window-size=1300,{height}"
    command = [BROWSER, *flags, profile, size, f"--screenshot={out}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return cv2.imread(str(out))[..., ::-1]


def pixels_of(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == np.array(colour, np.uint8)).all(axis=2).sum())


@pytest.fixture(scope="module")
def report(trained, data_root, tmp_path_factory):
    """Folder with index.html, the evaluation's JSON and the saved predictions."""
    out = tmp_path_factory.mktemp("report")
    done = fgda(
        "evaluate",
        trained,
        "--data-root",
        data_root,
        "--data",
        "playground-game",
        "--split",
        "train",
        "--report",
        out,
        "--json",
        out / "result.json",
        "--save-predictions",
        out / "saved",
    )
    assert done.returncode == 0 and f"report: {out / 'index.html'}" in done.stderr, done.stderr
    return out


def test_the_page_shows_the_numbers_of_the_evaluation(report):
    text = (report / "index.html").read_text()
    result = json.loads((report / "result.json").read_text())
    assert f"<b>{result['miou']:.1f} %</b>mIoU<" in text
    rows = re.findall(r"</i>([a-z ]+)</td><td>([\d.–]+)</td>", text)
    assert rows == [
        (name, "–" if (v := result["iou"][name]) is None else f"{v:.1f}") for name in NAMES
    ]
    cells = re.findall(r"title='([a-z ]+) seen as ([a-z ]+): (\d+) pixels", text)
    assert [int(count) for _, _, count in cells] == np.array(result["confusion"]).ravel().tolist()
    assert [cell[:2] for cell in cells] == [(truth, found) for truth in NAMES for found in NAMES]


def frames_of_page(page: Path) -> list[dict]:
    """The frames of a page's viewer."""
    (data,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page.read_text()
    )
    return json.loads(data)["frames"]


def test_scores_of_frames_are_those_of_an_independent_count(report, data_root):
    dataset = open_dataset(data_root, "playground-game")
    scores = {}
    for item in dataset.items("train"):
        one = ConfusionMatrix(19)
        one.update(
            dataset.label(item),
            cv2.imread(str(report / f"saved/{item.name}.png"), cv2.IMREAD_UNCHANGED),
        )
        scores[item.name] = one.miou()
    shown = {frame["name"]: frame["miou"] for frame in frames_of_page(report / "index.html")}
    order = sorted(scores, key=scores.get)
    assert {*order[:4], *order[-4:]} <= shown.keys()
    assert shown == {name: [pytest.approx(scores[name])] for name in shown}


def test_the_page_needs_nothing_from_elsewhere(report):
    text = (report / "index.html").read_text()
    assert text.count("data:image/") >= 8 * 4 and "default-src 'none'" in text
    assert not re.search(r"<link|https?://|url\(|fetch\(", text)


def test_a_browser_shows_the_page(report):
    picture = screenshot(report / "index.html", report / "page.png", 3000)
    assert picture.shape[1] == 1300
    # swatches and bars of road and cars
    assert pixels_of(picture, PALETTE[0]) > 300 and pixels_of(picture, PALETTE[13]) > 100
    # photographs under the classes are there
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 2000


def test_training_curves_of_a_run(trained, tmp_path):
    done = fgda("report", trained.parent.parent, "--out", tmp_path / "curves.html")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "curves.html").read_text()
    for heading in ("losses", "learning rate", "validation", "images/s", "Settings"):
        assert f"<h2>{heading}</h2>" in text
    assert text.count("<svg") == 4 and "iteration 6, finished" in text
    picture = screenshot(tmp_path / "curves.html", tmp_path / "page.png", 2000)
    # the first line's colour
    assert pixels_of(picture, (31, 119, 180)) > 300


def test_foreign_and_damaged_lines_of_a_log_are_counted(trained, tmp_path):
    run = shutil.copytree(trained.parent.parent, tmp_path / "run")
    with open(run / "metrics.jsonl", "a") as log:
        log.write(
            '{"iteration": "x", "loss": 1}\n[1]\n{"iteration": 7, "loss": {"a": []}}\n{"iteration":'
            ' 1e999}\n{"cut'
        )
    done = fgda("report", run)
    assert done.returncode == 0, done.stderr
    assert (
        "5 lines of metrics.jsonl are no measurement: left out" in (run / "report.html").read_text()
    )
    assert "no measurement" not in run_page(trained.parent.parent)


def test_what_is_no_run_is_refused(trained, tmp_path):
    done = fgda("report", tmp_path / "nowhere")
    assert done.returncode == 2 and "no such run folder" in done.stderr
    with pytest.raises(FgdaError, match="not a run folder"):
        run_page(tmp_path)
    (tmp_path / "preset.yaml").write_text((trained.parent.parent / "preset.yaml").read_text())
    (tmp_path / "metrics.jsonl").write_text("half a li")
    with pytest.raises(FgdaError, match="no measurement yet"):
        run_page(tmp_path)


def test_two_checkpoints_of_one_name_do_not_overwrite_each_other(trained, data_root, tmp_path):
    second = tmp_path / "second/checkpoints/final.pth"
    second.parent.mkdir(parents=True)
    shutil.copy(trained, second)
    done = fgda(
        "evaluate",
        trained,
        second,
        "--data-root",
        data_root,
        "--report",
        tmp_path / "pages",
        "--save-predictions",
        tmp_path / "saved",
    )
    assert done.returncode == 0, done.stderr
    names = [trained.parent.parent.name, "second"]
    assert [path.name for path in (tmp_path / "pages").glob("*.html")] == ["index.html"]
    text = (tmp_path / "pages/index.html").read_text()
    assert all(f"<h2>{name}: IoU by class</h2>" in text for name in names)
    assert all(len(list((tmp_path / "saved" / name).rglob("*.png"))) == 3 for name in names)
