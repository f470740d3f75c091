"""A picture of label maps alone, for pages that may not show the photographs: a row a frame, a
column a checkpoint.

    python benchmarks/label_maps.py kitti a.pth b.pth --headings source-only fgda --out maps.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from fgda_cli.inference.predict import predict
from fgda_cli.models.checkpoint import load_model
from fgda_cli.studies.compare import gather
from fgda_cli.visual.pictures import colourise, grid, with_legend


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("inputs", help="images, a folder, or a prepared data set")
    parser.add_argument("checkpoints", nargs="+", type=Path)
    parser.add_argument("--headings", nargs="+", required=True, help="a heading a checkpoint")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    images = [
        one.image for one in gather([arguments.inputs], arguments.data_root, arguments.frames)
    ]
    columns = []
    for path in arguments.checkpoints:
        model, info = load_model(path)
        columns.append(
            [colourise(predict(model, image)["train_ids"], info["classes"]) for image in images]
        )
    rows = [list(row) for row in zip(*columns, strict=True)]
    sheet = with_legend(grid(rows, arguments.headings, width=420), info["classes"])
    cv2.imwrite(str(arguments.out), sheet[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{arguments.out}: {len(images)} frames, {arguments.out.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
