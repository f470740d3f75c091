"""Loggers of a run's scalars besides metrics.jsonl: TensorBoard, Weights & Biases, MLflow, as
run.loggers says.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..runtime.errors import FgdaError
from ..runtime.files import write_text, writing
from ..settings import Preset

# under which runs stand, unless the environment says another
PROJECT = __package__.partition(".")[0].removesuffix("_cli")


class Logger(Protocol):
    def scalars(self, values: dict[str, float], iteration: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Events in the run folder; later events of a run that was resumed take the place of lost
    ones.
    """

    def __init__(self, folder: Path, preset: Preset, header: dict[str, Any], iteration: int):
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        with writing(folder):
            self.writer = SummaryWriter(str(folder), purge_step=iteration, flush_secs=30)

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        with writing(self.folder):
            for name, value in values.items():
                self.writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        with writing(self.folder):
            self.writer.close()


class WandB:
    """A run of the folder's own id, so that a resumed run goes on in it. WANDB_MODE=offline writes
    into the run folder alone.
    """

    def __init__(self, folder: Path, preset: Preset, header: dict[str, Any], iteration: int):
        wandb = library("wandb")
        name = f"{preset.name}-{header['method']}-seed{preset.run.seed}"
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=run_id(folder, iteration),
            name=name,
            resume="allow",
            dir=str(folder),
            config=preset.to_json() | {"stage": header["stage"], "method_name": header["method"]},
        )

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        self.run.log(values, step=iteration)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run in the store that MLFLOW_TRACKING_URI names, else in the run folder; a resumed run goes
    on in it.
    """

    def __init__(self, folder: Path, preset: Preset, header: dict[str, Any], iteration: int):
        mlflow = library("mlflow")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            mlflow.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        record = folder / "mlflow-run.txt"
        known = record.read_text(encoding="utf-8").strip() if record.is_file() else None
        name = f"{preset.name}-{header['method']}-seed{preset.run.seed}"
        self.mlflow = mlflow
        run = mlflow.start_run(run_id=known, run_name=None if known else name)
        if known is None:
            record.write_text(run.info.run_id, encoding="utf-8")
            flat = _flat(preset.to_json() | {"stage": header["stage"]})
            mlflow.log_params({key: str(value)[:500] for key, value in flat.items()})

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        self.mlflow.log_metrics(
            {name.replace("@", "at"): float(value) for name, value in values.items()},
            step=iteration,
        )

    def close(self) -> None:
        self.mlflow.end_run()


KINDS = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


@dataclass
class Loggers:
    """The loggers that run.loggers names, opened at the first scalars. Raises FgdaError for a
    missing package.
    """

    folder: Path
    preset: Preset
    header: dict[str, Any]
    opened: list[Logger] | None = None

    def scalars(self, values: dict[str, float], iteration: int) -> None:
        if self.opened is None:
            names = self.preset.run.loggers
            self.opened = [
                KINDS[name](self.folder, self.preset, self.header, iteration) for name in names
            ]
        for logger in self.opened:
            logger.scalars(values, iteration)

    def close(self) -> None:
        for logger in self.opened or ():
            logger.close()


def check_loggers(preset: Preset) -> None:
    """Check the loggers. Raises FgdaError for a missing package, before anything is trained."""
    for name in preset.run.loggers:
        if name != "tensorboard":
            library(name)
        if name == "mlflow" and "MLFLOW_TRACKING_URI" not in os.environ:
            # the database of mlflow's store in the run folder needs it
            library("sqlalchemy", "mlflow")


def library(name: str, extra: str | None = None) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = extra or name
        raise FgdaError(
            f"run.loggers: {extra} needs the package {name}: pip install 'fgda[{extra}]'"
        ) from error


def run_id(folder: Path, iteration: int = 0) -> str:
    """Return a run's id for W&B: drawn when it begins, and kept in its folder, so that it goes on
    in it; `--fresh` deletes it.

    A run that an earlier version began has an id made of its folder's name.
    """
    record = folder / "wandb-run.txt"
    if record.is_file():
        return record.read_text(encoding="utf-8").strip()
    of_folder = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
    name = of_folder if iteration else uuid.uuid4().hex[:12]
    write_text(record, name)
    return name


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict) and tree:
        return {
            key: value
            for name, part in tree.items()
            for key, value in _flat(part, f"{prefix}{name}.").items()
        }
    return {prefix.rstrip("."): tree}
