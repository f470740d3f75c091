"""Pictures of our own pages for docs/pages, drawn by chromium after `fgda demo`.

python benchmarks/page_pictures.py runs/demo
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2

DOCS = Path(__file__).parent.parent / "docs/pages"
WIDTH = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("demo", type=Path, help="the folder that fgda demo wrote")
    demo = parser.parse_args().demo
    before, after = demo / "pretrain-seed0", demo / "adapt-fgda-seed0"
    finals = [str(run / "checkpoints/final.pth") for run in (before, after)]
    root = ["--data-root", str(demo / "data")]
    DOCS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name, height, words in (
            ("comparison", 900, ["evaluate", *finals, *root]),
            ("verdict", 1050, ["verdict", *finals, *root]),
            ("gap", 900, ["gap", "playground-game", "playground-street", *root]),
        ):
            _fgda([*words, "--report", str(place / name)])
            _draw(place / name / "index.html", name, height)
        _fgda(
            [
                "compare",
                *finals,
                "--images",
                str(demo / "data/playground-street"),
                "--out",
                str(place / "look.html"),
            ]
        )
        _draw(place / "look.html", "look", height=1050)
        _fgda(["report", str(after), "--out", str(place / "run.html")])
        _draw(place / "run.html", "run", height=900)


def _fgda(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "fgda_cli", *words], check=True)


def _draw(page: Path, name: str, height: int) -> None:
    """Write the upper part of a page as docs/pages/NAME.png, as small as PNG can."""
    picture = DOCS / f"{name}.png"
    subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{height}",
            f"--screenshot={picture}",
            page.resolve().as_uri(),
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    pixels = cv2.imread(str(picture))
    cv2.imwrite(str(picture), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{picture}: {picture.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
