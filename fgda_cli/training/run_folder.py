"""The folder of one run: resolved preset, logs, checkpoints."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..models import checkpoint
from ..presets import from_json
from ..runtime.errors import FgdaError, UsageError
from ..runtime.files import HOLDER, LOCK, append_line, make_folder, write_text
from ..runtime.record import METRICS, RECORD, recorded
from ..runtime.text import BadText, dump_yaml, parse_yaml, read_text
from ..settings import Preset, Run

# What a changed value does to a run that goes on. A key that stands here takes effect at once;
# every other one is refused.
AT_ONCE = {
    "run.workers": "how images are read",
    "run.precision": "the number format from here on; said (stages.build)",
    "run.compile": "how the same is computed",
    "run.time_limit": "when it ends; a larger one plans the run anew",
    "run.patience": "when it ends",
    "run.keep": "which files it leaves",
    "run.loggers": "where it logs",
    "model.checkpoint_activations": "how the same is computed",
}
# the ids under which trackers know the run (loggers.py)
TRACKED = ("mlflow-run.txt", "wandb-run.txt")
# sections of the preset that a stage does not read
OTHER_STAGE = {
    "pretrain": ("adapt.", "data.target.labelled", "run.select"),
    "adapt": ("pretrain.", "methods.source-only."),
}
# keys of a stage that --extend may change
LENGTH_KEYS = ("iterations", "schedule_iterations")


@dataclass(frozen=True)
class Identity:
    """The identity of a run besides its preset; two runs that differ in one of these are not the
    same.
    """

    stage: str
    method: str
    init: str | None = None
    # hash of the start's weights: another file may lie at the same path later
    init_hash: str | None = None
    # hash of the training images, as they are prepared
    data: str | None = None


class RunFolder:
    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.checkpoints = self.folder / "checkpoints"
        self.last, self.best, self.final = (
            self.checkpoints / f"{n}.pth" for n in ("last", "best", "final")
        )
        self.metrics = self.folder / METRICS
        self.record = self.folder / RECORD
        self._content_of_last: dict | None = None

    def open(
        self,
        preset: Preset,
        identity: Identity,
        fresh: bool,
        extend: bool = False,
        data_root: Path | None = None,
    ) -> None:
        """Make the folder, or check that it belongs to the same run. Raises UsageError naming the
        keys that differ. `data_root` is recorded for the command that goes on; data may move.
        """
        others = (
            {path.name for path in self.folder.iterdir()} - {LOCK, HOLDER}
            if self.folder.is_dir()
            else ()
        )
        if not self.record.is_file() and others:
            raise UsageError(f"{self.folder} is not empty and holds no run: choose another --out")
        if fresh and self.record.is_file():
            self._clear()
        make_folder(self.folder)
        facts = asdict(identity) | {"data_root": None if data_root is None else str(data_root)}
        wanted = preset.to_json() | {"stage": facts}
        began = any(path.is_file() for path in (self.last, self.final, self.metrics))
        if self.record.is_file() and began:
            self._compare(wanted, identity, extend)
        # a run that never began holds nothing worth keeping
        if extend or not began:
            write_text(self.record, dump_yaml(wanted))
        # a final.pth marks the run as finished
        if extend:
            self.final.unlink(missing_ok=True)

    def _compare(self, wanted: dict, identity: Identity, extend: bool) -> None:
        """Compare the folder's run with this one. Raises UsageError when it is another."""
        try:
            recorded_run = parse_yaml(read_text(self.record))
            stage = recorded_run["stage"]
            # an older run recorded none
            found_hash = stage.get("init_hash")
            data = stage.get("data") or identity.data
        except (OSError, ValueError, KeyError, TypeError, AttributeError, BadText) as error:
            raise FgdaError(f"cannot read {self.record}: use --fresh to start over") from error
        free = [*AT_ONCE, *OTHER_STAGE[identity.stage]]
        free += ["stage.init", "stage.data", "stage.data_root"]
        free += [f"{identity.stage}.{key}" for key in LENGTH_KEYS] if extend else []
        recorded = _with_defaults(recorded_run)
        wanted = json.loads(json.dumps(wanted))
        differing = [
            key for key in _differences(recorded, wanted) if not key.startswith(tuple(free))
        ]
        if differing:
            shown = ", ".join(differing[:6]) + (", …" if len(differing) > 6 else "")
            hint = (
                ", or --extend to train it further"
                if differing == [f"{identity.stage}.iterations"]
                else ""
            )
            lost_its_limit = (
                recorded["run"].get("time_limit") and wanted["run"]["time_limit"] is None
            )
            if differing == ["run.select"] and lost_its_limit:
                hint = ", or give the --budget that the run was begun with, or a larger one"
            raise UsageError(
                f"{self.folder} holds a run with other settings: {shown}\nuse --fresh to start"
                f" over, or another --out{hint}"
            )
        if found_hash != identity.init_hash:
            raise UsageError(
                f"{self.folder} began from other weights than {identity.init} holds now (trained"
                " again since?)\nuse --fresh to start over from them, or another --out"
            )
        if data != identity.data:
            raise UsageError(
                f"{self.folder} was trained on other images or labels than the data sets hold now"
                " (prepared again since?)\nuse --fresh to start over with them, or another --out"
            )

    def length(self, stage: str) -> int | None:
        """Return the iterations that the folder's run was asked for; None when there is no run."""
        return recorded(self.folder, lambda found: int(found[stage]["iterations"]))

    def has_more_room(self, wanted: Run) -> bool:
        """Return whether the run is now allowed more time or patience than it was begun with."""
        before = recorded(self.folder, lambda found: Run.model_validate(found["run"]))
        if before is None:
            return False
        limits = ((before.time_limit, wanted.time_limit), (before.patience, wanted.patience))
        return any(was is not None and (now is None or now > was) for was, now in limits)

    def reached(self) -> int | None:
        """Return the iterations that the folder's run has trained; None when there is no
        checkpoint.
        """
        try:
            return int(self.read_last()["iteration"])
        except (FgdaError, KeyError, TypeError, ValueError):
            return None

    def read_last(self) -> dict:
        """Return the content of last.pth, which is read once at a start; `forget_last` frees it."""
        if self._content_of_last is None:
            self._content_of_last = checkpoint.load(self.last, whole=False)
        return self._content_of_last

    def forget_last(self) -> None:
        self._content_of_last = None

    def _clear(self) -> None:
        """Delete the run's own files, and nothing else that lies in the folder."""
        self.forget_last()
        logs = [*self.folder.glob("events.out.tfevents.*"), self.metrics, self.folder / "log.txt"]
        # a run of its own in W&B and MLflow too
        logs += [self.folder / name for name in TRACKED]
        kept = self.checkpoints.glob("iteration-*.pth")
        for path in (self.last, self.best, self.final, *kept, *logs, self.record):
            path.unlink(missing_ok=True)

    def trim_metrics(self, iteration: int, validated: int) -> None:
        """Delete log lines after the checkpoint that is resumed; they will be written again."""
        if not self.metrics.is_file():
            return
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        kept = [line for line in lines if _is_before(line, iteration, validated)]
        if len(kept) < len(lines):
            write_text(self.metrics, "".join(line + "\n" for line in kept))

    def log(self, record: dict) -> None:
        append_line(self.metrics, json.dumps(record))

    def note(self, text: str) -> None:
        append_line(self.folder / "log.txt", text)


def _is_before(line: str, iteration: int, validated: int) -> bool:
    try:
        record = json.loads(line)
        return record["iteration"] <= (validated if "validation" in record else iteration)
    except (ValueError, KeyError, TypeError):
        # a line cut short by a crash
        return False


def _with_defaults(record: dict) -> dict:
    """Return a run's record, completed by keys that are newer than the run, at their defaults."""
    try:
        preset = from_json(
            {key: value for key, value in record.items() if key != "stage"}, "preset.yaml"
        )
        return json.loads(json.dumps(preset.to_json() | {"stage": record["stage"]}))
    except UsageError:
        return record


def _differences(recorded_run, wanted, prefix: str = "") -> list[str]:
    if isinstance(recorded_run, dict) and isinstance(wanted, dict):
        keys = [*recorded_run, *(key for key in wanted if key not in recorded_run)]
        return [
            d
            for key in keys
            for d in _differences(recorded_run.get(key), wanted.get(key), f"{prefix}{key}.")
        ]
    return [] if recorded_run == wanted else [prefix.rstrip(".")]
