"""Whether all of it runs right on a GPU, and how fast: one command, eight minutes at most.

    python benchmarks/gpu.py --out gpu                                   # gpu/gpu.json, gpu/gpu.md
    python benchmarks/gpu.py --out gpu --real --data-root DATA           # then sim2camvid with larger encoders (prepared data)
    python benchmarks/gpu.py --out try --device cpu --quick              # the same code where there is no GPU

In order: every method's step on the device against the processor (losses in fp32 to 1e-4; bf16 and fp16 to 0.05), a resumed run,
`evaluate` on both, step time, images/s and peak memory of the presets, the plain published recipe beside, the paper's schedule
extrapolated from timed steps, the loader alone, `predict`. Both files are written after every part: what was measured is kept
when it is cut off. Parts that the time no longer allows are named as left out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import traceback
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import step as step_benchmark
import torch

import presets as presets_benchmark
from fgda_cli.config.presets import load_preset
from fgda_cli.data import playground
from fgda_cli.data.loader import Batch, Positions, batches
from fgda_cli.data.recipes import How, prepare_layout
from fgda_cli.data.store import open_dataset
from fgda_cli.inference.evaluate import evaluate_file
from fgda_cli.inference.pipeline import images_per_batch
from fgda_cli.inference.predict import predict_many
from fgda_cli.methods.registry import method_class, method_names
from fgda_cli.models import checkpoint
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.devices import Precision, make_precision
from fgda_cli.runtime.files import write_json, write_text
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import assembly, setup, stages
from fgda_cli.training.trainer import Trainer

QUIET = Reporter(quiet=True)
TOLERANCE = {"fp32": 1e-4, "bf16": 0.05, "fp16": 0.05}  # of a loss, relative to the processor's where that is above 1
REAL = ("resnet101", "timm:convnext_tiny.dinov3_lvd1689m", "timm:vit_small_patch14_dinov2")
TINY = (
    "data.source.size=[64, 32]", "data.target.size=[64, 32]", "data.evaluation.size=[64, 32]", "model.width=8", "run.workers=0",
    "pretrain.iterations=6", "pretrain.batch_size=2", "adapt.iterations=6", "adapt.batch_size=2", "run.precision=fp32",
    "pretrain.evaluate_every=99", "adapt.evaluate_every=99", "adapt.checkpoint_every=2",
)  # fmt: skip


class Report:
    """Both files, written anew after each part."""

    def __init__(self, out: Path, device: torch.device, minutes: float):
        self.out, self.start, self.limit = out, time.monotonic(), 60 * minutes
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
        self.tree = {"device": str(device), "name": name, "torch": torch.__version__, "cuda": torch.version.cuda,
                     "tf32_convolutions": torch.backends.cudnn.allow_tf32, "parts": {}, "left_out": []}  # fmt: skip

    def left(self) -> float:
        return self.limit - (time.monotonic() - self.start)

    def part(self, name: str, needs: float, work) -> None:
        """Do a part if its seconds are there; a part that fails is told as such, and the others go on."""
        if self.left() < needs:
            self.tree["left_out"].append(name)
        else:
            began = time.monotonic()
            try:
                self.tree["parts"][name] = {"rows": work(self)}
            except Exception as error:  # noqa: BLE001 - one part's failure is a finding, not the end
                self.tree["parts"][name] = {"rows": [], "error": f"{type(error).__name__}: {error}"[:300], "where": where(error)}
            self.tree["parts"][name]["seconds"] = round(time.monotonic() - began, 1)
            print(f"{name}: {self.tree['parts'][name].get('error', 'done')} ({self.left():.0f} s left)", flush=True)
        self.tree["seconds"] = round(time.monotonic() - self.start, 1)
        write_json(self.out / "gpu.json", self.tree)
        write_text(self.out / "gpu.md", markdown(self.tree))


def where(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{last.filename}:{last.lineno}"


def markdown(tree: dict) -> str:
    lines = [f"# {tree['name']}", "", f"torch {tree['torch']}, CUDA {tree['cuda']}, {tree.get('seconds', 0):.0f} s", ""]
    for name, part in tree["parts"].items():
        lines += [f"## {name}", ""]
        if part.get("error"):
            lines += [f"**failed**: {part['error']} ({part['where']})", ""]
        if part["rows"]:
            keys = list(dict.fromkeys(key for row in part["rows"] for key in row))
            lines += [f"| {' | '.join(keys)} |", "|---" * len(keys) + "|"]
            lines += [f"| {' | '.join(shown(row.get(key)) for key in keys)} |" for row in part["rows"]] + [""]
    return "\n".join([*lines, f"Left out for time: {', '.join(tree['left_out']) or 'nothing'}.", ""])


def shown(value) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def to_device(method, device: torch.device, name: str = "fp32") -> Precision:
    """The method on the device, its steps in this precision."""
    precision = Precision(name, device, torch.amp.GradScaler(device.type) if name == "fp16" and device.type == "cuda" else None)
    for module in (method.model, *method.modules.values(), *method.references.values()):
        precision.to_device(module)
    method.autocast, method.scale = precision.autocast, precision.scale
    if getattr(method, "things", None) is not None:
        method.things = method.things.to(device)
    return precision


def small(name: str):
    """A method on a small network, and a batch; the same whenever it is asked."""
    torch.manual_seed(0)
    model = Segmenter(5, "resnet18", width=16, multi_level=False)
    model.set_batch_norm("frozen")
    cls = method_class(name)
    method = cls(model, cls.Settings(name=name))
    for module in (model, *method.modules.values()):
        module.train()
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (2, 2, 3, 64, 96), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 5, (2, 64, 96), dtype=torch.uint8, generator=generator)
    return method, Batch(images[0], labels, images[1])


def terms_of(name: str, device: torch.device, precision: str) -> dict[str, float]:
    method, batch = small(name)
    to_device(method, device, precision)
    method.model.begin_iteration(0, 0)
    method.begin_iteration(0, 10, lambda: iter(batch.to(device).target))
    return {key: float(value.detach()) for key, value in method.step(batch.to(device)).items()}


def methods_part(device: torch.device, quick: bool):
    """Each method's losses on the device beside the processor's."""

    def work(report: Report) -> list[dict]:
        tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        kinds, rows = ("fp32", "bf16", "fp16") if device.type == "cuda" else ("fp32", "bf16"), []
        try:
            for name in method_names()[:3] if quick else method_names():
                wanted, row = terms_of(name, torch.device("cpu"), "fp32"), {"method": name}
                for kind in kinds:
                    found = terms_of(name, device, kind)
                    row[kind] = max(abs(found[key] - value) / max(1.0, abs(value)) for key, value in wanted.items())
                rows.append(row | {"right": all(row[kind] <= TOLERANCE[kind] for kind in kinds)})
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
        return rows

    return work


def prepared(root: Path) -> Path:
    """A small playground, prepared."""
    for sheet in playground.sheets(root / "raw", seed=0, train=12, val=4):
        playground.write_sheet(sheet)
    how = How(root / "data", (128, 64), 1, QUIET)
    prepare_layout("gta5", root / "raw/game", how, "playground-game")
    prepare_layout("cityscapes", root / "raw/street", how, "playground-street")
    return root / "data"


def resume_part(device: torch.device, data: Path, out: Path):
    """A run cut short beside one that was not, and evaluation on both devices."""

    def work(report: Report) -> list[dict]:
        job = stages.Job(load_preset("playground", list(TINY)), data, out / "pre", str(device), reporter=QUIET)
        start = stages.pretrain(job)
        whole = stages.adapt(replace(job, out=out / "whole"), start)
        original = Trainer.iterate

        def iterate(self, batch):
            if self.state.iteration == 3:
                raise KeyboardInterrupt
            return original(self, batch)

        Trainer.iterate = iterate
        try:
            stages.adapt(replace(job, out=out / "parts"), start)
        except KeyboardInterrupt:
            pass
        finally:
            Trainer.iterate = original
        again = stages.adapt(replace(job, out=out / "parts"), start)
        first, second = (checkpoint.load(path)["model"] for path in (whole, again))
        apart = max(float((first[key].float() - second[key].float()).abs().max()) for key in first)
        figures = {}
        for where_ in ("cpu", str(device)):
            precision = make_precision("fp32", torch.device(where_))
            figures[where_] = evaluate_file(whole, open_dataset(data, "playground-street"), "val", precision, QUIET)["miou"]
        values = list(figures.values())
        difference = abs(values[0] - values[-1])
        return [{"resumed run, largest difference of a weight": apart, "mIoU cpu": values[0], "mIoU device": values[-1],
                 "difference": difference, "right": apart <= 1e-3 and difference <= 0.1}]  # fmt: skip

    return work


def timed(work, device: torch.device, seconds: float, most: int) -> tuple[float, int]:
    """The median seconds of `work`, after two that warm up, and how often it was timed."""
    for _ in range(2):
        work()
    found, end = [], time.monotonic() + seconds
    while len(found) < most and (not found or time.monotonic() < end):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found), len(found)


def step_row(name: str, device: torch.device, kind: str, size, seconds: float, most: int, sets: tuple[str, ...] = ()) -> dict:
    """A preset's adaptation step in one precision: gradients, not optimisers."""
    method, batch = presets_benchmark.built(name, size, sets=sets)
    to_device(method, device, kind)
    batch = batch.to(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def work():
        for module in (method.model, *method.modules.values()):
            module.zero_grad(set_to_none=True)
        method.model.begin_iteration(0, 501)
        method.begin_iteration(501, 1000, lambda: iter(batch.target))
        method.step(batch)

    median, steps = timed(work, device, seconds, most)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
    return {"preset": name, "precision": kind, "step, s": median, "images/s": (len(batch.source) + len(batch.target)) / median,
            "steps": steps, "peak GiB": memory}  # fmt: skip


def presets_part(device: torch.device, quick: bool):
    def work(report: Report) -> list[dict]:
        rows, size = [], (64, 64) if quick else None
        names = presets_benchmark.PUBLISHED[:2] if quick else presets_benchmark.PUBLISHED
        for name in names:
            for kind in ("fp32",) if quick else ("fp32", "bf16"):
                if report.left() < 60 and not quick:
                    return rows
                rows.append(step_row(name, device, kind, size, 1 if quick else 6, 3 if quick else 50))
                torch.cuda.empty_cache() if device.type == "cuda" else None
        return rows

    return work


def schedule_part(device: torch.device, quick: bool):
    """The paper's 20k + 40k iterations, from timed steps; the published recipe's plain code beside."""

    def work(report: Report) -> list[dict]:
        size, most = ((64, 64), 3) if quick else (None, 300)
        kind = "fp32" if device.type == "cpu" else "bf16"
        seconds = 2 if quick else min(60.0, report.left() / 4)
        sets = ("model.backbone=resnet18", "model.variant=torchvision") if quick else ()
        ours = step_row("gta2city", device, kind, size, seconds, most, sets)
        wanted = SimpleNamespace(network="resnet18" if quick else "resnet101", like="fgda", threads=torch.get_num_threads(),
                                 source=size or (1280, 720), target=size or (1024, 512), batch=1)  # fmt: skip
        method = step_benchmark.networks(wanted)
        batch = step_benchmark.batch(wanted).to(device)
        for module in (method.model, *method.modules.values()):
            module.to(device)

        def plain():
            for module in (method.model, *method.modules.values()):
                module.zero_grad(set_to_none=True)
            step_benchmark.plain_step(method, batch)

        median, steps = timed(plain, device, seconds / 2, most)
        images, labels = batch.source, batch.labels

        def source_only():
            method.model.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16) if kind == "bf16" else nullcontext():
                output = method.model(images)
            method.backward(sum(method.segmentation(output._replace(logits=output.logits.float()), labels).values()))

        pretrain, _ = timed(source_only, device, seconds / 4, most)
        minutes = (20_000 * pretrain + 40_000 * ours["step, s"]) / 60
        return [{"our step, s": ours["step, s"], "timed": ours["steps"], "precision": kind, "plain fp32 step, s": median,
                 "plain timed": steps, "times as fast": median / ours["step, s"], "pretrain step, s": pretrain,
                 "20k + 40k, minutes (steps alone)": minutes}]  # fmt: skip

    return work


def loader_part(device: torch.device, data: Path, quick: bool):
    """Paired samples a second with worker processes, nothing else running."""

    def work(report: Report) -> list[dict]:
        preset = load_preset("playground", ["data.colour_jitter=[0.5, 0.5, 0.5, 0.2]"])
        found = setup.open_datasets(preset, data, method_class("fgda"), QUIET)
        samples = assembly.make_samples(preset, preset.adapt, found, method_class("fgda"))
        rows = []
        for workers in (0, 2) if quick else (0, 4, 8):
            count, start = 20 if quick else 200, time.perf_counter()
            for _ in batches(samples, Positions(0, count, 4), workers, pin=device.type == "cuda"):
                pass
            rows.append({"workers": workers, "pairs/s (256x128)": 4 * count / (time.perf_counter() - start)})
        return rows

    return work


def predict_part(device: torch.device, quick: bool):
    """From images in memory to train ids, the network's forward alone beside."""

    def work(report: Report) -> list[dict]:
        model = Segmenter(19, "resnet18" if quick else "resnet101", multi_level=False).eval()
        precision = make_precision("fp32" if device.type == "cpu" else "bf16", device)
        precision.to_device(model)
        generator = torch.Generator().manual_seed(0)
        size = (32, 64) if quick else (512, 1024)
        images = [torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator).numpy() for _ in range(8)]
        whole, _ = timed(lambda: predict_many(model, images, precision, with_entropy=False), device, 2 if quick else 15, 20)
        tensor = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]).to(device)

        def bare():
            with torch.inference_mode(), precision.autocast():
                for part in tensor.split(images_per_batch(size[::-1], device)):
                    model(part)

        forward, _ = timed(bare, device, 2 if quick else 10, 20)
        return [{"images/s": len(images) / whole, "forward alone, images/s": len(images) / forward, "ratio": whole / forward}]

    return work


def real_part(device: torch.device, data: Path, out: Path):
    """sim2camvid with larger encoders, as `fgda ablate` runs it; a backbone whose weights are not at hand is named."""

    def work(report: Report) -> list[dict]:
        from fgda_cli.studies.ablate import run_ablation

        rows = []
        for backbone in REAL:
            sets = [f"model.backbone={backbone}", "model.weights=imagenet", "model.output_stride=native"]
            job = stages.Job(load_preset("sim2camvid", sets), data, out / backbone.replace(":", "-"), str(device), reporter=QUIET)
            try:
                summary = run_ablation(job, "sim2camvid", sets, ["source-only", "fgda", "fgda-st"], [0, 1, 2])
            except Exception as error:  # noqa: BLE001 - weights that cannot be fetched are a row
                rows.append({"backbone": backbone, "failed": str(error).splitlines()[0][:120]})
                continue
            rows += [
                {"backbone": backbone, "method": row["method"], "mIoU": row["mean"], "sd": row["spread"]}
                for row in summary["rows"]
            ]
        return rows

    return work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--quick", action="store_true", help="few methods, small images: whether this script runs")
    parser.add_argument("--real", action="store_true", help="then sim2camvid with larger encoders (takes longer)")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: --device cpu --quick tries the script")
    report, quick = Report(arguments.out, device, arguments.minutes), arguments.quick
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(Path(folder))
        report.part("methods", 5, methods_part(device, quick))
        report.part("resume and evaluate", 20, resume_part(device, data, Path(folder)))
        report.part("schedule", 60 if not quick else 5, schedule_part(device, quick))
        report.part("presets", 60 if not quick else 5, presets_part(device, quick))
        report.part("loader", 10, loader_part(device, data, quick))
        report.part("predict", 20 if not quick else 5, predict_part(device, quick))
        if arguments.real:
            report.limit += 3600
            report.part("real", 60, real_part(device, arguments.data_root, arguments.out / "runs"))


if __name__ == "__main__":
    main()
