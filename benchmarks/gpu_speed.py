"""How fast the device is: parts of gpu.py."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import loader as loader_benchmark
import step as step_benchmark
import torch
from gpu_checks import QUIET, TINY, Bench, to_device

import presets as presets_benchmark
from fgda_cli.data.loader import Positions, batches
from fgda_cli.data.prepare import How, prepare_layout
from fgda_cli.inference.pipeline import images_per_batch
from fgda_cli.inference.predict import predict_many
from fgda_cli.methods.registry import method_class
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.presets import load_preset, preset_names
from fgda_cli.runtime.devices import make_precision
from fgda_cli.runtime.errors import FgdaError
from fgda_cli.training import components, datasets, stages

ADAMW = (
    "optim.kind=adamw",
    "optim.lr=1e-4",
    "optim.head_lr_factor=10",
    "optim.weight_decay=0.05",
    "adapt.lr=2e-5",
)
# encoder -> how it differs from sim2camvid's own; none is tuned but that
REAL = {
    "the preset's": (),
    "resnet101": ("model.backbone=resnet101", "model.weights=imagenet", "model.output_stride=16"),
    "convnext_tiny": (
        "model.backbone=timm:convnext_tiny.in12k_ft_in1k",
        "model.weights=imagenet",
        "model.output_stride=native",
        *ADAMW,
    ),
    "dinov2 ViT-S": (
        "model.backbone=timm:vit_small_patch14_dinov2",
        "model.weights=imagenet",
        "model.output_stride=native",
        "model.head=dpt",
        *ADAMW,
    ),
}
# the bars, on one H100
TARGETS = {"minutes": 60, "times as fast": 2.5, "of the bare passes": 0.55}


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable, device: torch.device, seconds: float, most: int) -> tuple[float, int]:
    """The median seconds of `work`, after two that warm up, and how often it was timed."""
    for _ in range(2):
        work()
    found = []
    end = time.monotonic() + seconds
    while len(found) < most and (not found or time.monotonic() < end):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found), len(found)


def full_size(bench: Bench) -> Path:
    """Images of GTA5's and Cityscapes' sizes, prepared at the paper's."""
    root = bench.folder / "large"
    if not (root / "data").is_dir():
        shrink = 8 if bench.quick else 1
        loader_benchmark.write_raw(root, 2 if bench.quick else 16, shrink)
        for layout, folder, (width, height) in (
            ("gta5", "gta5", loader_benchmark.SOURCE),
            ("cityscapes", "city", loader_benchmark.TARGET),
        ):
            size = (width // shrink, height // shrink)
            prepare_layout(layout, root / folder, How(root / "data", size, 4, reporter=QUIET))
    return root / "data"


def real_steps(bench: Bench, sets: list[str], warm: int, timed_: int) -> dict[str, float]:
    """Seconds an iteration of both stages of gta2city as `fgda pretrain` and `fgda adapt` run them:
    loader, optimisers, logs and late readings included. From the log: the iterations after
    `warm`.
    """
    found = {}
    start = None
    for stage in ("pretrain", "adapt"):
        lengths = {
            "iterations": warm + timed_,
            "log_every": warm,
            "evaluate_every": 10**6,
            "checkpoint_every": 10**6,
        }
        sizes = [f"{stage}.{key}={value}" for key, value in lengths.items()]
        wanted = load_preset(
            "gta2city", ["model.weights=none", "data.sampling=uniform", *sets, *sizes]
        )
        out = bench.folder / f"runs-{stage}"
        job = stages.Job(
            wanted, full_size(bench), out, device=str(bench.device), fresh=True, reporter=QUIET
        )
        start = stages.pretrain(job) if stage == "pretrain" else stages.adapt(job, start)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        rates = [
            line["images_per_second"]
            for line in lines
            if "images_per_second" in line and line["iteration"] > warm
        ]
        found[stage] = getattr(wanted, stage).batch_size * statistics.mean(
            1 / rate for rate in rates
        )
    return found


def bare_seconds(
    bench: Bench, kind: str, seconds: float, most: int, size, sets: tuple[str, ...]
) -> float:
    """The networks' own passes of one step of gta2city, forward and backward, and nothing else."""
    method, batch = presets_benchmark.built("gta2city", size, sets=sets)
    precision = to_device(method, bench.device, kind)
    batch = batch.to(bench.device)
    passes, _ = presets_benchmark.passes_of(method, batch)

    def work() -> None:
        presets_benchmark.cleared(method)
        with precision.autocast():
            passes()

    return timed(work, bench.device, seconds, most)[0]


def plain_seconds(bench: Bench, seconds: float, most: int, size) -> tuple[float, int]:
    """The published recipe's step on the same device: fp32 (TF32 where torch lets convolutions use
    it), contiguous.
    """
    wanted = SimpleNamespace(
        network="resnet18" if bench.quick else "resnet101",
        like="fgda",
        threads=torch.get_num_threads(),
        source=size or loader_benchmark.SOURCE,
        target=size or loader_benchmark.TARGET,
        batch=1,
    )
    with step_benchmark.published_layers():
        method = step_benchmark.networks(wanted)
        batch = step_benchmark.batch(wanted).to(bench.device)
        optimizers = [torch.optim.SGD(method.model.parameters(), 2.5e-4, 0.9, weight_decay=5e-4)]
        for module in (method.model, *method.modules.values()):
            module.to(bench.device)
        optimizers += [
            torch.optim.Adam(d.parameters(), 1e-4, betas=(0.9, 0.99))
            for d in method.discriminators.values()
        ]

        def work() -> None:
            for optimizer in optimizers:
                optimizer.zero_grad()
            step_benchmark.plain_step(method, batch)
            for optimizer in optimizers:
                optimizer.step()

        return timed(work, bench.device, seconds, most)


def schedule_part(bench: Bench) -> list[dict]:
    """The paper's 20k + 40k iterations, from real runs; bare passes and the published recipe's
    plain code beside.
    """
    kind = "bf16" if bench.is_gpu else "fp32"
    small = ("model.backbone=resnet18", "model.width=8") if bench.quick else ()
    size = (64, 64) if bench.quick else None
    sets = [*small, f"run.precision={kind}", "run.workers=0" if bench.quick else "run.workers=8"]
    if bench.quick:
        sets += [f"data.{domain}.size=[64, 64]" for domain in ("source", "target", "evaluation")]
    found = real_steps(bench, sets, *((2, 4) if bench.quick else (50, 300)))
    bare = bare_seconds(bench, kind, 0.3 if bench.quick else 20, 50, size, small)
    plain, plain_steps = plain_seconds(bench, 0.3 if bench.quick else 30, 100, size)
    row = {
        "precision": kind,
        "pretrain iteration, s": found["pretrain"],
        "adapt iteration, s": found["adapt"],
        "timed": 4 if bench.quick else 300,
        "minutes": (20_000 * found["pretrain"] + 40_000 * found["adapt"]) / 60,
        "plain fp32 iteration, s": plain,
        "plain timed": plain_steps,
        "times as fast": plain / found["adapt"],
        "bare passes, s": bare,
        "of the bare passes": bare / found["adapt"],
    }
    met = {"minutes": row["minutes"] <= TARGETS["minutes"]}
    met |= {key: row[key] >= TARGETS[key] for key in ("times as fast", "of the bare passes")}
    return [
        row | {"bars missed": ", ".join(key for key, is_met in met.items() if not is_met) or None}
    ]


def step_row(
    bench: Bench, name: str, kind: str, size, seconds: float, most: int, compiled: bool = False
) -> dict:
    """A preset's adaptation step in one precision: gradients, not optimisers."""
    device = bench.device
    method, batch = presets_benchmark.built(name, size)
    to_device(method, device, kind)
    batch = batch.to(device)
    if compiled:
        method.model.backbone.compile()
    if bench.is_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)

    def work() -> None:
        presets_benchmark.cleared(method)
        presets_benchmark.step(method, batch)

    began = time.perf_counter()
    work()
    synchronise(device)
    first = time.perf_counter() - began
    median, steps = timed(work, device, seconds, most)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if bench.is_gpu else None
    return {
        "preset": name,
        "precision": kind,
        "step, s": median,
        "images/s": (len(batch.source) + len(batch.target)) / median,
        "steps": steps,
        "first step, s": first,
        "peak GiB": memory,
    }


def presets_part(bench: Bench) -> Iterator[dict]:
    """All that are shipped, those of papers first; the time for the parts after it is left."""
    first = ["playground"] if bench.quick else presets_benchmark.PUBLISHED
    others = (
        [] if bench.quick else [name for name in preset_names() if name not in (*first, "base")]
    )
    size, most = ((64, 64), 3) if bench.quick else (None, 50)
    for name in (*first, *others):
        for kind in ("fp32",) if bench.quick else ("bf16", "fp32"):
            if bench.left() > 75 or bench.quick:
                yield step_row(bench, name, kind, size, 0.3 if bench.quick else 3, most)
            else:
                yield {"preset": name, "precision": kind, "left out": "for time"}


def compiled_part(bench: Bench) -> Iterator[dict]:
    """gta2city's step with cuDNN choosing its kernels by rule and by trial, and compiled."""
    name = "playground" if bench.quick else "gta2city"
    size = (64, 64) if bench.quick else None
    kind, seconds, most = ("fp32", 0.3, 3) if bench.quick else ("bf16", 6, 50)
    before = torch.backends.cudnn.benchmark
    try:
        for by_trial in (False, True):
            torch.backends.cudnn.benchmark = by_trial
            how = {"how": f"kernels by {'trial' if by_trial else 'rule'}"}
            yield how | step_row(bench, name, kind, size, seconds, most)
        if not bench.quick:
            yield {"how": "compiled"} | step_row(
                bench, name, kind, size, seconds, most, compiled=True
            )
    finally:
        torch.backends.cudnn.benchmark = before


def loader_part(bench: Bench) -> Iterator[dict]:
    """Pairs of the paper's sizes a second, read, jittered and mirrored, nothing else running."""
    preset = load_preset("gta2city", ["data.sampling=uniform"])
    found = datasets.open_datasets(preset, full_size(bench), method_class("fgda"), reporter=QUIET)
    samples = components.make_samples(preset, preset.adapt, found, method=method_class("fgda"))
    for workers in (0, 2) if bench.quick else (0, 4, 8):
        count = 4 if bench.quick else 40 * max(1, workers)
        start = time.perf_counter()
        for _ in batches(samples, Positions(0, count, 1), workers, pin=bench.is_gpu):
            pass
        yield {
            "workers": workers,
            "pairs/s (1280x720, 1024x512)": count / (time.perf_counter() - start),
        }


def predict_part(bench: Bench) -> list[dict]:
    """From images in memory to train ids, the network's forward alone beside."""
    device = bench.device
    quick = bench.quick
    model = Segmenter(19, "resnet18" if quick else "resnet101", multi_level=False).eval()
    precision = make_precision("bf16" if bench.is_gpu else "fp32", device)
    precision.to_device(model)
    generator = torch.Generator().manual_seed(0)
    size = (32, 64) if quick else (512, 1024)
    images = [
        torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator).numpy()
        for _ in range(8)
    ]
    whole, _ = timed(
        lambda: predict_many(model, images, precision, with_entropy=False),
        device,
        0.3 if quick else 15,
        20,
    )
    tensor = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in images]).to(device)

    def bare() -> None:
        with torch.inference_mode(), precision.autocast():
            for part in tensor.split(images_per_batch(size[::-1], device)):
                model(part)

    forward, _ = timed(bare, device, 0.3 if quick else 10, 20)
    return [
        {
            "images/s": len(images) / whole,
            "forward alone, images/s": len(images) / forward,
            "ratio": whole / forward,
        }
    ]


def real_part(bench: Bench, data: Path, out: Path) -> Iterator[dict]:
    """sim2camvid with larger encoders, as `fgda ablate` runs it; a backbone whose weights are not
    at hand is named.
    """
    from fgda_cli.studies.ablate import Row, run_ablation

    name = "sim2camvid"
    rows = [Row.parse(name) for name in ("source-only", "fgda", "fgda-st")]
    seeds = [0, 1, 2]
    if bench.quick:
        name = "playground"
        rows = rows[:2]
        seeds = seeds[:1]
    for encoder, changed in list(REAL.items())[: 2 if bench.quick else None]:
        sets = [*(TINY if bench.quick else ()), *changed]
        try:
            job = stages.Job(
                load_preset(name, sets),
                data,
                out / encoder.replace(" ", "-"),
                device=str(bench.device),
                reporter=QUIET,
            )
            began = time.monotonic()
            summary = run_ablation(job, name, sets, rows=rows, seeds=seeds)
        # weights that cannot be fetched are a row
        except FgdaError as error:
            yield {"encoder": encoder, "failed": str(error).splitlines()[0][:120]}
            continue
        minutes = (time.monotonic() - began) / 60
        for row in summary["rows"]:
            yield {
                "encoder": encoder,
                "method": row["method"],
                "mIoU": row["mean"],
                "sd": row["spread"],
                "without labels": row["label_free"],
                "minutes, all": minutes,
            }
