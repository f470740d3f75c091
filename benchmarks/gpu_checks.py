"""Whether the device gives what the processor gives: parts of gpu.py."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from alone import SMALL, with_random_foundation

from fgda_cli.data import playground
from fgda_cli.data.loader import Batch
from fgda_cli.data.prepare import How, prepare_layout
from fgda_cli.data.store import open_dataset
from fgda_cli.inference.evaluate import evaluate_file
from fgda_cli.methods.base import Method
from fgda_cli.methods.registry import method_class, method_names
from fgda_cli.models import checkpoint
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.models.tuning import tune
from fgda_cli.presets import load_preset
from fgda_cli.runtime.devices import Precision, make_precision
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.training import components, stages
from fgda_cli.training.run_folder import RunFolder
from fgda_cli.training.trainer import Trainer

QUIET = Reporter(quiet=True)
# of a loss, relative to the processor's where that is above 1
TOLERANCE = {"fp32": 1e-4, "bf16": 0.02, "fp16": 0.01}
TINY = (
    "data.source.size=[64, 32]",
    "data.target.size=[64, 32]",
    "data.evaluation.size=[64, 32]",
    "model.width=8",
    "run.workers=0",
    "pretrain.iterations=6",
    "pretrain.batch_size=2",
    "adapt.iterations=6",
    "adapt.batch_size=2",
    "run.precision=fp32",
    "pretrain.evaluate_every=99",
    "adapt.evaluate_every=99",
    "adapt.checkpoint_every=2",
)


TRANSFORMER = ("model.weights=none", "model.multi_level=false", "model.output_stride=native")
# what a row checks beside the methods on a small ResNet: a method, and the network's settings
VARIANTS = {
    "mic on an adapter": (
        "mic",
        (*TRANSFORMER, "model.backbone=adapter:tiny14", "model.head=linear", "model.width=64"),
    ),
    "mic with low-rank updates": (
        "mic",
        (
            *TRANSFORMER,
            "model.backbone=dinov2:tiny14",
            "model.head=transposed",
            "model.head_width=16",
            "model.width=64",
            "model.tune=lora",
        ),
    ),
}


@dataclass(frozen=True)
class Bench:
    """Where the parts of gpu.py run: a device, a folder for their data, and the seconds that are
    left.
    """

    device: torch.device
    quick: bool
    folder: Path
    left: Callable[[], float] = lambda: 1e9

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def methods(self) -> list[str]:
        return [*(["fgda", "mic"] if self.quick else method_names()), *VARIANTS]


def to_device(method: Method, device: torch.device, name: str = "fp32") -> Precision:
    """The method on the device, its steps in this precision."""
    precision = Precision(
        name,
        device,
        torch.amp.GradScaler(device.type) if name == "fp16" and device.type == "cuda" else None,
    )
    for module in (method.model, *method.modules.values(), *method.references.values()):
        precision.to_device(module)
    method.autocast = precision.autocast
    method.scale = precision.scale
    if getattr(method, "things", None) is not None:
        method.things = method.things.to(device)
    return precision


def small(name: str) -> tuple[Method, Batch]:
    """A method, or a row of VARIANTS, on a small network, and a batch; the same whenever it is
    asked.
    """
    torch.manual_seed(0)
    name, sets = VARIANTS.get(name, (name, None))
    if sets is None:
        model = Segmenter(5, "resnet18", width=16, multi_level=False)
    else:
        settings = load_preset("playground", [*sets]).model
        model = checkpoint.build_model(settings, 5)
        tune(model, settings)
    model.set_batch_norm("frozen")
    cls = method_class(name)
    method = with_random_foundation(cls(model, cls.Settings(name=name, **SMALL.get(name, {}))))
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


def methods_part(bench: Bench) -> Iterator[dict]:
    """Each method's losses on the device beside the processor's, convolutions and products without
    TF32.
    """
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        for name in bench.methods:
            wanted = terms_of(name, torch.device("cpu"), "fp32")
            row = {"method": name}
            for kind in TOLERANCE:
                found = terms_of(name, bench.device, kind)
                row[kind] = max(
                    abs(found[key] - value) / max(1.0, abs(value)) for key, value in wanted.items()
                )
            yield row | {"right": all(row[kind] <= TOLERANCE[kind] for kind in TOLERANCE)}
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32


@contextmanager
def watched(device: torch.device) -> Iterator[Counter]:
    """The lines at which the host waits for a GPU inside, by how often; on a processor there is
    nothing to wait for.
    """
    found: Counter[str] = Counter()
    if device.type != "cuda":
        yield found
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for warning in caught:
        if "synchroniz" in str(warning.message):
            found[f"{Path(warning.filename).name}:{warning.lineno}"] += 1


def trainer_of(name: str, device: torch.device, precision: str) -> tuple[Trainer, Batch]:
    """What steps a small network by this method, without data, run folder or validations."""
    method, batch = small(name)
    own, _ = VARIANTS.get(name, (name, None))
    preset = load_preset("playground", ["adapt.iterations=30"], own)
    found = to_device(method, device, precision)
    state = components.make_state(method, preset, preset.adapt, precision=found)
    run = RunFolder(Path())
    header = {"stage": "adapt", "method": name}
    return Trainer(
        state,
        None,
        preset.adapt,
        preset=preset,
        run=run,
        header=header,
        validators=None,
        reporter=QUIET,
    ), batch.to(device)


def waits_part(bench: Bench) -> Iterator[dict]:
    """How often the third iteration of each method makes the host wait, and where first (the first
    two fill tables).
    """
    # its one iteration trains nothing
    for name in [name for name in bench.methods if name != "adabn"]:
        for kind in ("bf16", "fp16") if bench.is_gpu else ("fp32",):
            trainer, batch = trainer_of(name, bench.device, kind)
            trainer.target_images = lambda batch=batch: iter(batch.target)
            for _ in range(2):
                trainer.train_iteration(batch)
            with watched(bench.device) as waits:
                trainer.train_iteration(batch)
            where = ", ".join(f"{line} ({count})" for line, count in waits.items())
            yield {
                "method": name,
                "precision": kind,
                "waits": sum(waits.values()),
                "where": where or None,
                "right": not waits,
            }


def prepared(root: Path) -> Path:
    """A small playground, prepared."""
    for sheet in playground.sheets(root / "raw", seed=0, train=12, val=4):
        playground.write_sheet(sheet)
    how = How(root / "data", (128, 64), 1, reporter=QUIET)
    prepare_layout("gta5", root / "raw/game", how, name="playground-game")
    prepare_layout("cityscapes", root / "raw/street", how, name="playground-street")
    return root / "data"


def resume_part(bench: Bench) -> list[dict]:
    """A run cut short beside one that was not, and evaluation on both devices."""
    data = prepared(bench.folder / "small")
    device = bench.device
    out = bench.folder / "resume"
    job = stages.Job(
        load_preset("playground", list(TINY)), data, out / "pre", device=str(device), reporter=QUIET
    )
    start = stages.pretrain(job)
    whole = stages.adapt(replace(job, out=out / "whole"), start)
    original = Trainer.train_iteration

    def iterate(self, batch):
        if self.state.iteration == 3:
            raise KeyboardInterrupt
        return original(self, batch)

    Trainer.train_iteration = iterate
    try:
        stages.adapt(replace(job, out=out / "parts"), start)
    except KeyboardInterrupt:
        pass
    finally:
        Trainer.train_iteration = original
    again = stages.adapt(replace(job, out=out / "parts"), start)
    first, second = (checkpoint.load(path)["model"] for path in (whole, again))
    apart = max(float((first[key].float() - second[key].float()).abs().max()) for key in first)
    values = []
    for where in (torch.device("cpu"), device):
        precision = make_precision("fp32", where)
        values.append(
            evaluate_file(
                whole,
                open_dataset(data, "playground-street"),
                "val",
                precision=precision,
                reporter=QUIET,
            ).miou
        )
    difference = abs(values[0] - values[1])
    return [
        {
            "resumed run, largest difference of a weight": apart,
            "mIoU cpu": values[0],
            "mIoU device": values[1],
            "difference": difference,
            "right": apart <= 1e-3 and difference <= 0.1,
        }
    ]
