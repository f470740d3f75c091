"""The training loop: it feeds batches, steps optimisers, logs, saves and stops. It knows no method
by name.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data import loader
from ..models import checkpoint
from ..runtime.distributed import ProcessGroup
from ..runtime.errors import FgdaError, Stopped
from ..runtime.random import StepStream, generator_of
from ..runtime.reporter import Reporter
from ..runtime.transfer import Readings
from ..settings import Preset, Stage
from ..signals.observe import Observed
from .loggers import Loggers
from .run_folder import RunFolder
from .state import TrainState
from .stopping import OUT_OF_TIME, Clock, stop_on_signals
from .validation import Validators


@dataclass
class Soundness:
    """Checks of a run whose resumable checkpoint is `last`; on a GPU, losses are read one iteration
    late.
    """

    last: Path
    # pretrain or adapt, whose learning rate the message names
    stage: str
    readings: Readings = field(default_factory=Readings)
    # the latest one that was read, as shown beside the progress
    loss: str = ""

    def take(self, iteration: int, norm: Tensor, terms: dict[str, Tensor]) -> None:
        """Check an iteration's gradient norm and loss terms (scalars). Raises FgdaError."""
        self._check(self.readings.put((iteration, tuple(terms)), [norm, *terms.values()]))

    def check_weights(self, state: TrainState) -> None:
        """Check the losses that are not read yet, and all weights. Raises FgdaError."""
        self._check(self.readings.rest())
        broken = state.broken_weights()
        if broken:
            self._give_up(
                f"{len(broken)} tensors hold NaN or infinity at iteration {state.iteration}, e.g."
                f" {broken[0]}"
            )

    def _check(self, reading: tuple[Any, list[float]] | None) -> None:
        if reading is None:
            return
        (iteration, names), (norm, *values) = reading
        bad = [name for name, value in zip(names, values, strict=True) if not math.isfinite(value)]
        if bad or not math.isfinite(norm):
            what = f"loss '{bad[0]}' is" if bad else "gradients are"
            self._give_up(f"{what} not finite at iteration {iteration}")
        terms = dict(zip(names, values, strict=True))
        self.loss = f"loss {terms.get('seg', values[0]):.3f}"

    def _give_up(self, what: str) -> None:
        """Raise FgdaError: nothing of this iteration is kept, the last good checkpoint stays, and
        the way to go on is named.
        """
        lower = f"--set {self.stage}.lr=LOWER"
        if not self.last.is_file():
            raise FgdaError(
                f"{what}; no checkpoint was written yet\nstart over with --fresh {lower}, or"
                " --precision fp32"
            )
        go_on = (
            f", or go on from it: --init {self.last} --out NEW {lower}"
            if self.stage == "adapt"
            else ""
        )
        raise FgdaError(
            f"{what}; the last good checkpoint is {self.last}\nstart over with --fresh"
            f" {lower}{go_on}"
        )


@dataclass
class Trainer:
    """Runs one stage of a preset in a run folder."""

    state: TrainState
    samples: loader.PairedSamples
    stage: Stage
    preset: Preset
    run: RunFolder
    # facts that every checkpoint holds: stage, method, classes, input rule
    header: dict[str, Any]
    validators: Validators
    reporter: Reporter
    process_group: ProcessGroup = ProcessGroup()
    clock: Clock = field(default_factory=Clock)
    loggers: Loggers = field(init=False)
    soundness: Soundness = field(init=False)

    def __post_init__(self):
        self.loggers = Loggers(self.run.folder, self.preset, self.header)
        self.soundness = Soundness(self.run.last, self.header["stage"])

    def train(self) -> None:
        """Train to the last iteration, or until a signal: then a resumable checkpoint is written
        and Stopped is raised.
        """
        total = self.stage.iterations
        state = self.state
        device = self.state.precision.device
        if self.process_group.is_first:
            self.run.trim_metrics(state.iteration, state.validated)
        positions = loader.Positions(
            state.iteration,
            total,
            self.stage.batch_size,
            rank=self.process_group.rank,
            processes=self.process_group.size,
        )
        feed = loader.batches(
            self.samples, positions, self.preset.run.workers, pin=device.type == "cuda"
        )
        label = f"{self.header['stage']} {self.header['method']}"
        self.look_before()
        progress = self.reporter.progress(label, total, state.iteration)
        with loader.watched(), stop_on_signals() as request, progress as advance:
            clock = time.perf_counter()
            images = 0
            for batch in feed:
                if self.validation_is_due():
                    self.evaluate()
                    if self.is_stale():
                        break
                    clock = time.perf_counter()
                    images = 0
                terms = self.train_iteration(batch.to(device))
                images += self.stage.batch_size
                if state.iteration % self.stage.log_every == 0 or state.iteration == total:
                    seconds = time.perf_counter() - clock
                    self.log(self.numbers(terms), images / max(seconds, 1e-9))
                    clock = time.perf_counter()
                    images = 0
                self.plan()
                advance(1, self.soundness.loss, self.length)
                signum = self.stop_signal(request.signum)
                if signum == OUT_OF_TIME or state.iteration >= self.length:
                    break
                if signum:
                    self.save_last()
                    self.loggers.close()
                    raise Stopped(
                        signum,
                        f"stopped at iteration {state.iteration}: run the same command to go on",
                    )
                if state.iteration % self.stage.checkpoint_every == 0 and state.iteration < total:
                    self.save_last()
        self.finish()

    def validation_is_due(self) -> bool:
        """Return whether to validate, asked before an iteration, so that a resumed run makes up for
        a missed validation.
        """
        iteration = self.state.iteration
        if iteration == 0 or self.state.validated == iteration:
            return False
        return (
            iteration % self.stage.evaluate_every == 0 and self.affords_a_look()
        ) or self.is_time_to_look()

    def affords_a_look(self) -> bool:
        return self.clock.limit is None or bool(
            self.process_group.first_says(self.clock.affords_a_look())
        )

    def is_time_to_look(self) -> bool:
        if self.clock.limit is None or not self.validators.picks_label_free:
            return False
        return bool(self.process_group.first_says(self.clock.is_time_to_look()))

    def stop_signal(self, asked: int | None) -> int:
        """Return the signal that any process got, OUT_OF_TIME by the first one's clock, or 0."""
        signum = self.process_group.largest(asked or 0)
        if signum or self.clock.limit is None:
            return signum
        return OUT_OF_TIME if self.process_group.first_says(self.clock.is_out_of_time()) else 0

    @property
    def length(self) -> int:
        """Return the iteration at which training ends: the stage's last, or the last that fits a
        time limit.
        """
        return self.state.planned or self.stage.iterations

    def plan(self) -> None:
        """Set the length of training once its speed is known, within a time limit; the learning
        rates decay until then.
        """
        if self.clock.limit is None or self.state.planned is not None:
            return
        fits = self.process_group.first_says(
            self.clock.iterations_that_fit(self.state.iteration) or 0
        )
        if fits:
            self.state.planned = min(self.stage.iterations, fits)
            self.reporter.decide(
                f"the time limit has room for {self.state.planned} of {self.stage.iterations}"
                " iterations"
                + (": the learning rates decay until then" if fits < self.stage.iterations else "")
            )

    def is_stale(self) -> bool:
        return self.preset.run.patience is not None and self.state.stale >= self.preset.run.patience

    def look_before(self) -> None:
        """Compute the signals of the model that the run begins as; a resumed run has them
        already.
        """
        state = self.state
        # weights of the start, wanted here alone
        began = state.began
        state.began = None
        if self.validators.label_free is None:
            return
        self.fix_frames()
        begins = state.iteration == 0 and self.stage.start == "pretrain"
        if state.before is not None:
            self.validators.label_free.before = Observed.from_json(state.before)
        elif begins and self.process_group.is_first:
            self.look_at_start(began)

    def fix_frames(self) -> None:
        """Let the label-free validator look at the frames that this run looked at before, or at as
        many as a time limit affords.
        """
        validator = self.validators.label_free
        state = self.state
        if state.frames is not None:
            validator.use(state.frames)
        elif state.before is None and self.clock.limit is not None and self.process_group.is_first:
            with self.clock.looking():
                validator.fit(state.inference_state_dict(), self.clock.limit)
            state.frames = len(validator.frames.images)

    def look_at_start(self, began: dict[str, Tensor] | None) -> None:
        """Compute the signals of the checkpoint that adaptation starts from (its weights are
        `began`; None: the model's own), and keep the start as the best of a guarded method.
        """
        validator = self.validators.label_free
        state = self.state
        weights = state.inference_state_dict()
        # Building the run may have changed the model already: its batch norm statistics.
        unchanged = began is None or all(
            torch.equal(value.cpu(), began[name]) for name, value in weights.items()
        )
        with self.clock.looking():
            validator.before = validator.look(weights if unchanged else began)
        state.before = validator.before.to_json()
        if state.method.guarded and self.validators.picks_label_free:
            state.best = 0.0 if unchanged else validator.score(weights, 0)
            checkpoint.save(
                self.run.best,
                self.inference_content() | {"metrics": {"label_free": state.best}},
            )

    def train_iteration(self, batch: loader.Batch) -> dict[str, torch.Tensor]:
        """Run one step of the method and its optimisers."""
        state = self.state
        method = self.state.method
        state.set_rates(
            self.stage.schedule_iterations or self.stage.iterations,
            self.stage.iterations / self.length,
        )
        state.clear_gradients()
        method.model.begin_iteration(method.seed, state.iteration)
        method.begin_iteration(state.iteration, self.length, self.target_images)
        with self.drawn_by_position():
            terms = self.process_group.mean_terms(self.step_parts(batch))
        self.process_group.average_gradients(state.parameters())
        scaler = state.precision.scaler
        # With loss scaling, the scaler answers overflowing gradients by a smaller scale.
        norm = next(iter(terms.values())).new_zeros(()) if scaler else state.gradient_norm()
        self.soundness.take(state.iteration + 1, norm, terms)
        if self.preset.optim.clip_norm:
            state.clip_gradients(self.preset.optim.clip_norm)
        # the scaler fails on one without
        for optimizer in state.with_gradients():
            scaler.step(optimizer) if scaler else optimizer.step()
        if scaler:
            scaler.update()
        method.end_iteration(state.iteration)
        state.iteration += 1
        if state.iteration > (1 - self.stage.average_last) * self.length:
            state.average_weights()
        return terms

    @contextmanager
    def drawn_by_position(self) -> Iterator[None]:
        """Seed torch's own generator (dropout) by (seed, iteration, process) inside, so that a
        resumed run draws the same.
        """
        model = self.preset.model
        if not (model.dropout or model.drop_path or model.lora.dropout):
            yield
            return
        device = self.state.precision.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            generator = generator_of(
                self.state.method.seed,
                StepStream.DROPOUT,
                self.state.iteration,
                self.process_group.rank,
            )
            torch.manual_seed(generator.initial_seed())
            yield

    def step_parts(self, batch: loader.Batch) -> dict[str, torch.Tensor]:
        """Run the method's step on each part of the batch; gradients and terms add up to the mean
        over the parts.
        """
        parts = self.stage.accumulate
        method = self.state.method
        if parts == 1:
            return self.step_part(batch)
        scale = method.scale
        terms_by_part = []
        try:
            method.scale = lambda loss: scale(loss) / parts
            method.whole = batch
            for number, part in enumerate(batch.split(parts)):
                method.part = (number, parts)
                method.images = part
                terms_by_part.append(
                    {name: term.detach() for name, term in self.step_part(part).items()}
                )
        finally:
            method.scale = scale
            method.part = (0, 1)
            method.images = None
            method.whole = None
        names = {name for terms in terms_by_part for name in terms}
        return {
            name: sum(terms[name] for terms in terms_by_part if name in terms) / parts
            for name in sorted(names)
        }

    def step_part(self, batch: loader.Batch) -> dict[str, torch.Tensor]:
        """Run the method's step and, where the target has labels, the step on its labelled
        images.
        """
        method = self.state.method
        terms = method.step(batch)
        return terms if batch.labelled is None else terms | method.labelled_step(batch)

    def target_images(self) -> Iterator[torch.Tensor]:
        return self.samples.target_images(self.process_group.rank, self.process_group.size)

    @staticmethod
    def numbers(terms: dict[str, torch.Tensor]) -> dict[str, float]:
        return dict(
            zip(
                terms,
                torch.stack([term.detach().float() for term in terms.values()]).cpu().tolist(),
                strict=True,
            )
        )

    def verdict(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the label-free verdict on adaptation for final.pth; it is printed and logged
        too.
        """
        validator = self.validators.label_free
        if validator is None or validator.before is None or self.stage.start != "pretrain":
            return {}
        validator.score(content["model"], content["iteration"])
        verdict = validator.verdict()
        for line in (f"without labels: {verdict.in_words()}", *verdict.words):
            self.run.note(line)
            (self.reporter.warn if verdict.kind == "collapsed or harmful" else self.reporter.say)(
                line
            )
        return {"verdict": verdict.to_json()}

    def log(self, terms: dict[str, float], speed: float) -> None:
        if not self.process_group.is_first:
            return
        lrs = {
            name: optimizer.param_groups[0]["lr"]
            for name, optimizer in self.state.optimizers.items()
        }
        record = {
            "iteration": self.state.iteration,
            **terms,
            "lr": lrs,
            "images_per_second": round(speed, 3),
        }
        self.run.log(record)
        values = {f"loss/{name}": value for name, value in terms.items()} | {
            f"lr/{name}": lr for name, lr in lrs.items()
        }
        self.loggers.scalars(values, self.state.iteration)

    def evaluate(self) -> dict | None:
        """Validate, log the scores, and keep the best checkpoint."""
        self.soundness.check_weights(self.state)
        if (
            self.validators.by_labels is None
            and self.validators.by_source is None
            and not self.validators.picks_label_free
        ):
            return None
        with self.clock.looking():
            score, summary = self.validate(self.state.inference_state_dict())
        self.state.validated = self.state.iteration
        if self.process_group.is_first:
            self.keep_validation(score, summary)
        self.state.stale = self.process_group.first_says(self.state.stale)
        return summary

    def validate(self, weights: dict) -> tuple[float | None, dict]:
        """Return the score that may set best.pth, and all metrics; each is printed."""
        validators = self.validators
        state = self.state
        summary = {}
        score = None
        if validators.by_labels is not None:
            metrics = validators.by_labels(weights)
            metric = self.preset.data.evaluation.metric
            # 16 or 13 classes need Cityscapes'.
            measured = metrics["miou"] if metrics.get(metric) is None else metrics[metric]
            summary = {
                key: metrics[key]
                for key in ("miou", "miou16", "miou13")
                if metrics.get(key) is not None
            }
            shown = "no class to evaluate" if measured is None else f"mIoU {measured:.2f}"
            self.reporter.say(f"iteration {state.iteration}: {shown}")
            score = measured if validators.picks_by_labels else None
        if validators.by_source is not None:
            score = summary["source_miou"] = validators.by_source(weights)["miou"]
            state.curve.append((state.iteration, score))
            self.reporter.say(
                f"iteration {state.iteration}: mIoU {score:.2f} on the source's validation images"
            )
        if validators.picks_label_free and self.process_group.is_first:
            score = summary["label_free"] = validators.label_free.score(weights, state.iteration)
            if state.before is None:
                self.reporter.decide(
                    f"signals without labels are compared with those of iteration {state.iteration}"
                )
                state.before = validators.label_free.before.to_json()
            self.reporter.say(
                f"iteration {state.iteration}: {score:+.2f} without labels (points of mIoU to"
                " expect)"
            )
        return score, summary

    def keep_validation(self, score: float | None, summary: dict) -> None:
        """Log a validation, and write best.pth when it is the best."""
        self.run.log({"iteration": self.state.iteration, "validation": summary})
        self.loggers.scalars(
            {f"validation/{name}": value for name, value in summary.items()}, self.state.iteration
        )
        self.state.stale += 1
        if self.preset.run.keep:
            path = self.run.checkpoints / f"iteration-{self.state.iteration:06d}.pth"
            checkpoint.save(path, self.inference_content() | {"metrics": summary})
        if score is not None and (self.state.best is None or score > self.state.best):
            self.state.best = score
            self.state.stale = 0
            checkpoint.save(self.run.best, self.inference_content() | {"metrics": summary})

    def inference_content(self) -> dict[str, Any]:
        """Return what evaluation and prediction need of this run; where a part of the encoder is
        trained, that part by itself too.
        """
        weights = {
            name: value.detach() for name, value in self.state.inference_state_dict().items()
        }
        return {**self.description(), "model": weights}

    def description(self) -> dict[str, Any]:
        """Return what a checkpoint says of itself, and what it trained of an encoder that is frozen
        for the rest.
        """
        adapters = self.state.adapters()
        return {
            **self.header,
            "iteration": self.state.iteration,
            "preset": self.preset.to_json(),
            **({"adapters": adapters, "frozen": self.state.frozen_hash} if adapters else {}),
        }

    def save_last(self) -> None:
        """Write last.pth. Raises FgdaError when weights are NaN or infinite; the checkpoint before
        then stays.
        """
        if not self.process_group.is_first:
            return
        self.soundness.check_weights(self.state)
        if self.clock.limit is not None:
            self.state.spent = self.clock.spent()
        content = self.description() if self.state.method.model.frozen else self.inference_content()
        checkpoint.save(self.run.last, content | {"train": self.state.state_dict()})
        self.run.note(f"iteration {self.state.iteration}: checkpoint written")

    def finish(self) -> None:
        """Validate once more, then write final.pth and last.pth: a run with a final.pth is
        finished.

        A run that ended early, for time or patience, ends with its best checkpoint.
        """
        summary = self.evaluate() if self.state.validated != self.state.iteration else None
        if not self.process_group.is_first:
            return
        ended_early = self.state.iteration < self.stage.iterations
        content = None
        guarded = self.state.method.guarded and self.validators.picks_label_free
        by_source = self.validators.by_source is not None
        if (ended_early or guarded or by_source) and self.run.best.is_file():
            content = checkpoint.load(self.run.best)
            reached = f"{self.state.iteration} of {self.stage.iterations}"
            said = f"ended at iteration {reached} with the best, that of {content['iteration']}"
            said += " (by the source's validation images)" if by_source else ""
            if guarded and content["iteration"] == 0:
                said = (
                    "nothing was better than the start, as far as signals without labels tell:"
                    " final.pth is the start"
                )
            self.reporter.decide(said)
            self.run.note(said)
        content = content or self.inference_content() | {"metrics": summary or {}}
        if by_source:
            content = content | {"source_validation": self.state.curve}
        checkpoint.save(self.run.final, content | self.verdict(content))
        self.save_last()
        self.run.note(f"iteration {self.state.iteration}: finished")
        self.loggers.close()
