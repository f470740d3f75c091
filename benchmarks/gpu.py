"""Whether all of it runs right on a GPU, and how fast: one command, eight minutes at most.

    python benchmarks/gpu.py --out gpu                                   # gpu/gpu.json, gpu/gpu.md
    python benchmarks/gpu.py --out gpu --real --data-root DATA           # then sim2camvid with
    larger encoders (prepared data) python benchmarks/gpu.py --out try --device cpu --quick
    # the same code where there is no GPU

In order: every method's step on the device against the processor (losses in fp32 to 1e-4, bf16
0.02, fp16 0.01) and how often its iterations make the host wait (gpu_checks.py), a resumed run,
`evaluate` on both; then speed (gpu_speed.py): the paper's schedule extrapolated from real runs,
bare passes and the plain published recipe beside, step time, images/s and peak memory of the
presets, `predict`, the loader alone, and the step compiled. Both files are written after every row:
what was measured is kept when it is cut off. What the time no longer allows is named as left out.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import gpu_checks as checks
import gpu_speed as speed
import torch

from fgda_cli.runtime.files import write_json, write_text

# name, the seconds that it needs, and what it is
PARTS = (
    ("methods", 5, checks.methods_part),
    ("waits", 5, checks.waits_part),
    ("resume and evaluate", 20, checks.resume_part),
    ("schedule", 90, speed.schedule_part),
    ("presets", 60, speed.presets_part),
    ("predict", 20, speed.predict_part),
    ("loader", 10, speed.loader_part),
    ("compiled", 100, speed.compiled_part),
)


class Report:
    """Both files, written anew after each row."""

    def __init__(self, out: Path, device: torch.device, minutes: float):
        self.out = out
        self.start = time.monotonic()
        self.limit = 60 * minutes
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
        self.tree = {
            "device": str(device),
            "name": name,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "parts": {},
            "left_out": [],
        }

    def left(self) -> float:
        return self.limit - (time.monotonic() - self.start)

    def part(self, name: str, needs: float, work: Callable[[], Iterable[dict]]) -> None:
        """Do a part if its seconds are there, and keep each row as it comes; a part that fails is
        told as such, and the others go on."""
        if self.left() < needs:
            self.tree["left_out"].append(name)
        else:
            began = time.monotonic()
            found = {"rows": []}
            self.tree["parts"][name] = found
            try:
                for row in work():
                    found["rows"].append(row)
                    self.write()
            except Exception as error:  # noqa: BLE001 - one part's failure is a finding, not the end
                found |= {"error": f"{type(error).__name__}: {error}"[:300], "where": where(error)}
            found["seconds"] = round(time.monotonic() - began, 1)
            print(f"{name}: {found.get('error', 'done')} ({self.left():.0f} s left)", flush=True)
        self.write()

    def write(self) -> None:
        self.tree["seconds"] = round(time.monotonic() - self.start, 1)
        write_json(self.out / "gpu.json", self.tree)
        write_text(self.out / "gpu.md", markdown(self.tree))


def where(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def markdown(tree: dict) -> str:
    lines = [
        f"# {tree['name']}",
        "",
        f"torch {tree['torch']}, CUDA {tree['cuda']}, {tree.get('seconds', 0):.0f} s",
        "",
    ]
    for name, part in tree["parts"].items():
        lines += [f"## {name}", ""]
        if part.get("error"):
            lines += [f"**failed**: {part['error']} ({part['where']})", ""]
        if part["rows"]:
            keys = list(dict.fromkeys(key for row in part["rows"] for key in row))
            lines += [f"| {' | '.join(keys)} |", "|---" * len(keys) + "|"]
            lines += [
                f"| {' | '.join(shown(row.get(key)) for key in keys)} |" for row in part["rows"]
            ] + [""]
    return "\n".join(
        [*lines, f"Left out for time: {', '.join(tree['left_out']) or 'nothing'}.", ""]
    )


def shown(value) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument(
        "--quick", action="store_true", help="few methods, small images: whether this script runs"
    )
    parser.add_argument(
        "--real", action="store_true", help="then sim2camvid with larger encoders (takes longer)"
    )
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: --device cpu --quick tries the script")
    report = Report(arguments.out, device, arguments.minutes)
    with tempfile.TemporaryDirectory() as folder:
        bench = checks.Bench(device, arguments.quick, Path(folder), report.left)
        for name, needs, work in PARTS:
            report.part(name, 0.1 * needs if arguments.quick else needs, partial(work, bench))
        if arguments.real:
            report.limit += 3600
            report.part(
                "real",
                60,
                partial(speed.real_part, bench, arguments.data_root, arguments.out / "runs"),
            )


if __name__ == "__main__":
    main()
