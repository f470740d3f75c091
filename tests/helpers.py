"""What tests share: small settings, the command line in this process or in one of its own, runs
that are cut short.
"""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from fgda_cli.data.loader import Batch, PairedSamples
from fgda_cli.data.store import open_dataset
from fgda_cli.methods.registry import method_class
from fgda_cli.models import checkpoint
from fgda_cli.models.foundation import load_foundation
from fgda_cli.models.segmenter import Segmenter
from fgda_cli.runtime.reporter import Reporter
from fgda_cli.settings import Data, Source, Target
from fgda_cli.training.trainer import Trainer

ROOT = Path(__file__).parent.parent
QUIET = Reporter(quiet=True)
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# mean and standard deviation `[1,3,1,1]` of ImageNet
IMAGENET = [
    torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
]
SIZE = {"size": (64, 32)}

TINY = (
    "data.source.size=[64, 32]",
    "data.target.size=[64, 32]",
    "data.evaluation.size=[64, 32]",
    "model.width=8",
    "pretrain.iterations=6",
    "pretrain.batch_size=2",
    "pretrain.checkpoint_every=2",
    "pretrain.log_every=1",
    "adapt.iterations=6",
    "adapt.batch_size=2",
    "adapt.checkpoint_every=2",
    "adapt.log_every=1",
    "pretrain.evaluate_every=100",
    "adapt.evaluate_every=100",
    "run.precision=fp32",
    "run.workers=0",
)


@dataclass(frozen=True)
class Listening(Reporter):
    """Keeps what is said in place of printing it."""

    said: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)


def set_flags(*overrides: str) -> list[str]:
    return [part for override in (*TINY, *overrides) for part in ("--set", override)]


def needs(*packages: str) -> pytest.MarkDecorator:
    """For tests of what an extra brings: `make test-oldest` installs none."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def benchmark(name: str):
    """A script of benchmarks/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# the command line


def with_preset(arguments: Iterable) -> list[str]:
    """Name the playground where a training command names no preset."""
    words = [*map(str, arguments)]
    trains = words[:1] in (["pretrain"], ["adapt"], ["ablate"])
    is_named = {"--preset", "-p", "--help"} & {word.partition("=")[0] for word in words}
    return [words[0], "--preset", "playground", *words[1:]] if trains and not is_named else words


def fgda(*arguments, cwd=None, stdin: bytes | None = None) -> subprocess.CompletedProcess:
    """Run a command in this process: a second less than in one of its own. What it changes of the
    process is put back.
    """
    command = with_preset(arguments)
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with _as_before(), redirect_stdout(out), redirect_stderr(err):
        from fgda_cli.app import main

        os.environ.update(ENVIRONMENT)
        os.chdir(cwd or os.getcwd())
        if stdin is not None:
            sys.stdin = io.TextIOWrapper(io.BufferedReader(io.BytesIO(stdin)))
        code = main(command)
    texts = [stream.buffer.getvalue().decode("utf-8", "backslashreplace") for stream in (out, err)]
    return subprocess.CompletedProcess(command, code, *texts)


@contextmanager
def _as_before() -> Iterator[None]:
    """Environment, folder, signals, thread hook, standard input and torch's settings are afterwards
    what they were before.
    """
    environment = dict(os.environ)
    folder = os.getcwd()
    hook = threading.excepthook
    stdin = sys.stdin
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    random = torch.random.get_rng_state()
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        threading.excepthook = hook
        sys.stdin = stdin
        for number, handler in handlers.items():
            signal.signal(number, handler)
        torch.random.set_rng_state(random)
        torch.set_num_threads(threads)


def python(*arguments, launcher=(), popen=False):
    """Run Python in a process of its own, or several by torchrun; with `popen`, return while it
    runs.
    """
    command = [sys.executable, *launcher, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    if popen:
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


# runs that are cut short, and their weights


def stop_at(monkeypatch, iteration: int, action) -> None:
    """Call `action` in place of the first lines of an iteration."""
    original = Trainer.train_iteration

    def iterate(self, batch):
        if self.state.iteration == iteration:
            action()
        return original(self, batch)

    monkeypatch.setattr(Trainer, "train_iteration", iterate)


def crash_at(monkeypatch, iteration: int, run: Callable[[], object]) -> None:
    """Run to an iteration, where a crash (nothing is saved, as by a kill) ends it."""

    def crash() -> None:
        raise MemoryError("stands for a kill: nothing is saved")

    with monkeypatch.context() as patch:
        stop_at(patch, iteration, crash)
        with pytest.raises(MemoryError):
            run()


def same(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same bits."""
    a = checkpoint.load(first)["model"]
    b = checkpoint.load(second)["model"]
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def distance(first: dict, second: dict | None = None) -> float:
    """Euclidean, of all weights as one vector; from zero without `second`."""
    values = {key: value.double() for key, value in first.items() if value.is_floating_point()}
    return (
        sum(
            float((value - (second[key].double() if second else 0)).square().sum())
            for key, value in values.items()
        )
        ** 0.5
    )


def data_settings(source: dict = SIZE, target: dict = SIZE, **keys) -> Data:
    """The section `data` of a preset, not validated: nothing is changed in colour unless told."""
    plain = {"colour_jitter": (0.0, 0.0, 0.0, 0.0), "sampling": "uniform", "evaluation": None}
    return Data.model_construct(
        source=Source.model_construct(**source),
        target=Target.model_construct(**target),
        **(plain | keys),
    )


COLOURFUL = {"colour_jitter": (0.5, 0.5, 0.5, 0.2), "blur": 1.0}


def samples(data_root: Path, settings: Data | None = None, **how) -> PairedSamples:
    """The small playground's training samples, mirrored, jittered and blurred unless told
    otherwise.
    """
    source = open_dataset(data_root, "playground-game")
    target = open_dataset(data_root, "playground-street")
    settings = settings or data_settings(**COLOURFUL)
    return PairedSamples(source, target, settings, seed=0, **how)


# small methods
FOUNDATION = {
    "distil_model": "timm:vit_tiny_patch16_224",
    "distil_weights": "none",
    "distil_scale": 1.0,
}
# settings of methods whose own are large
SMALL = {"vfmuda": FOUNDATION}


def make(name: str, multi_level: bool, dtype=torch.float64, **settings):
    """A method of this name around a small ResNet-18 of five classes, in training mode."""
    torch.manual_seed(0)
    model = Segmenter(5, "resnet18", width=8, multi_level=multi_level)
    model.set_batch_norm("frozen")
    cls = method_class(name)
    method = cls(model, cls.Settings(name=name, **SMALL.get(name, {}) | settings))
    for module in (model, *method.modules.values()):
        module.to(dtype).train()
    give_foundation(method, dtype)
    return method


def give_foundation(method, *where) -> None:
    """The method's foundation model, if it has one, as `before_training` gives it; `where`: a
    device or type.
    """
    if "feature_head" in method.modules:
        s = method.settings
        twin = load_foundation(s.distil_model, s.distil_weights, s.distil_scale)
        method.references["foundation"] = twin.to(*where).eval().requires_grad_(False)


def batch() -> Batch:
    """Two images of each domain, 48x32, and the source's labels."""
    g = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (2, 2, 3, 32, 48), dtype=torch.uint8, generator=g)
    labels = torch.randint(0, 5, (2, 32, 48), dtype=torch.uint8, generator=g)
    return Batch(images[0], labels, images[1])


def gradients(method) -> dict:
    """Gradients of the model and the discriminators, by name."""
    modules = {"model": method.model, **method.discriminators}
    return {
        f"{m}.{n}": p.grad
        for m, module in modules.items()
        for n, p in module.named_parameters()
        if p.requires_grad
    }


# published files


def random_state(shapes) -> dict:
    """Random weights of these shapes, whose forward pass stays in range."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
        elif key.endswith("running_var"):
            state[key] = torch.rand(shape, generator=generator) + 0.5
        else:
            fan = max(1, torch.Size(shape[1:]).numel())
            state[key] = (
                torch.randn(shape, generator=generator)
                * (2 / fan) ** 0.5
                * (0.3 if len(shape) == 1 else 1)
            )
    return state


def close(found, expected) -> None:
    """Assert that logits are equal to rounding."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
