"""The folder of one run: resolved preset, logs, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from ..config.schema import Preset
from ..data.files import write_text
from ..runtime.errors import FgdaError, UsageError

# Keys that do not change what is computed, so that a resume may change them.
FREE_KEYS = ("run.workers", "run.precision", "run.compile", "model.checkpoint_activations")
OTHER_STAGE = {"pretrain": "adapt.", "adapt": "pretrain."}


class RunFolder:
    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.checkpoints = self.folder / "checkpoints"
        self.last, self.best, self.final = (self.checkpoints / f"{n}.pth" for n in ("last", "best", "final"))
        self.metrics = self.folder / "metrics.jsonl"

    def open(self, preset: Preset, identity: dict, fresh: bool) -> None:
        """Make the folder, or check that it belongs to the same run. Raises UsageError naming the keys that differ."""
        record = self.folder / "preset.yaml"
        if not record.is_file() and self.folder.is_dir() and any(self.folder.iterdir()):
            raise UsageError(f"{self.folder} is not empty and holds no run: choose another --out")
        if fresh and record.is_file():
            self._clear()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FgdaError(f"cannot make {self.folder}: {error.strerror}") from error
        wanted = preset.to_json() | {"stage": identity}
        if record.is_file():
            try:
                found = yaml.safe_load(record.read_text())
            except (OSError, ValueError, yaml.YAMLError) as error:
                raise FgdaError(f"cannot read {record}: use --fresh to start over") from error
            free = (*FREE_KEYS, OTHER_STAGE[identity["stage"]])
            differing = [key for key in _differences(found, json.loads(json.dumps(wanted))) if not key.startswith(free)]
            if differing:
                shown = ", ".join(differing[:6]) + (", …" if len(differing) > 6 else "")
                raise UsageError(
                    f"{self.folder} holds a run with other settings: {shown}\nuse --fresh to start over, or another --out"
                )
        else:
            write_text(record, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))

    def _clear(self) -> None:
        """Delete the run's own files, and nothing else that lies in the folder."""
        logs = [*self.folder.glob("events.out.tfevents.*"), self.metrics, self.folder / "log.txt"]
        for path in (self.last, self.best, self.final, *logs, self.folder / "preset.yaml"):
            path.unlink(missing_ok=True)

    def trim_metrics(self, iteration: int, validated: int) -> None:
        """Forget log lines after the checkpoint that is resumed; they will be written again."""
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_text(errors="replace").splitlines()
        kept = [line for line in lines if _is_before(line, iteration, validated)]
        if len(kept) < len(lines):
            write_text(self.metrics, "".join(line + "\n" for line in kept))

    def log(self, record: dict) -> None:
        with open(self.metrics, "a") as handle:
            handle.write(json.dumps(record) + "\n")

    def note(self, text: str) -> None:
        with open(self.folder / "log.txt", "a") as handle:
            handle.write(text + "\n")


def _is_before(line: str, iteration: int, validated: int) -> bool:
    try:
        record = json.loads(line)
        return record["iteration"] <= (validated if "validation" in record else iteration)
    except (ValueError, KeyError, TypeError):
        return False  # a line cut short by a crash


def _differences(found, wanted, prefix: str = "") -> list[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        keys = [*found, *(key for key in wanted if key not in found)]
        return [d for key in keys for d in _differences(found.get(key), wanted.get(key), f"{prefix}{key}.")]
    return [] if found == wanted else [prefix.rstrip(".")]
