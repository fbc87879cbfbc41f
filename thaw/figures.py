"""The latest figures of a job, as a person follows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thaw.shapes import Job


@dataclass(frozen=True)
class Figure:
    """How good a network is, in the figure that tells most for its task."""

    name: str
    value: float

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Figure | None:
        """The main figure among the server's; None where the task has none, or it is not a number."""
        name = values.get("main_metric") or "accuracy"
        value = (values.get("metrics") or values).get(name)
        return None if value is None else cls(name.replace("_", " "), value)

    @classmethod
    def all_of(cls, values: Mapping[str, Any]) -> tuple[Figure, ...]:
        """Every figure where none is the main one, as with the losses of a network's own training steps."""
        if values.get("main_metric") or cls.of(values):
            return ()
        found: Mapping[str, float] = values.get("metrics") or {}
        return tuple(cls(name.replace("_", " "), value) for name, value in sorted(found.items()))

    def __str__(self) -> str:
        return f"{self.name} {self.value:.3f}"


@dataclass(frozen=True)
class Figures:
    """What is known now; what is not yet known is None. Epochs count from 1 here, as people do.

    `main` is the figure that tells most; where there is none, `equals` are all that there are.
    """

    phase: str
    epoch: int | None = None
    n_epochs: int | None = None
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    main: Figure | None = None
    equals: tuple[Figure, ...] = ()
    held_out: Figure | None = None
    eta_s: float | None = None
    n_done: int | None = None
    n_samples: int | None = None
    samples_per_s: float | None = None

    @classmethod
    def of(cls, job: Job) -> Figures:
        """The figures in a job as the server gave it."""
        progress = job.raw.get("progress") or {}
        train = progress.get("train") or {}
        validation = progress.get("validation") or {}
        extraction = progress.get("extraction") or {}
        running = job.phase == "running"
        at_work = {"training": train, "extracting": extraction}.get(progress.get("phase") or "", {})
        return cls(
            phase=progress.get("phase") or job.phase if running else in_words(job),
            epoch=train["epoch"] + 1 if train else None,
            n_epochs=train.get("n_epochs"),
            step=train.get("step"),
            total_steps=train.get("total_steps"),
            loss=train.get("loss"),
            main=Figure.of(train),
            equals=Figure.all_of(train),
            held_out=Figure.of(validation),
            eta_s=at_work.get("eta_s") if running else None,
            n_done=extraction.get("n_done"),
            n_samples=extraction.get("n_samples"),
            samples_per_s=extraction.get("samples_per_s") if at_work is extraction else None,
        )

    @property
    def done(self) -> float:
        """The part of the training's steps, or of the samples to extract from, that is done, from 0 to 1."""
        if self.n_done is not None and self.n_samples:
            return self.n_done / self.n_samples
        return self.step / self.total_steps if self.step is not None and self.total_steps else 0.0

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to tell beside the phase."""
        return self.step is not None or self.n_done is not None

    def parts(self) -> list[str]:
        """The figures as short texts: epoch, step, loss, the task's own, samples extracted, time left."""
        texts = [self.phase]
        if self.epoch is not None:
            texts += [f"epoch {self.epoch}/{self.n_epochs}", f"step {self.step}/{self.total_steps}"]
        if self.loss is not None:
            texts.append(f"loss {self.loss:.3f}")
        texts += [str(figure) for figure in (self.main, *self.equals) if figure is not None]
        if self.held_out is not None:
            texts.append(f"held-out {self.held_out}")
        if self.n_done is not None:
            texts.append(f"{self.n_done:,} of {self.n_samples:,} samples")
        if self.samples_per_s is not None:
            texts.append(f"{self.samples_per_s:.0f} a second")
        if self.eta_s is not None:
            texts.append(f"{clock(self.eta_s)} left")
        return texts


_LEAVING = {
    "cancel": "stopping, to be cancelled",
    "pause": "stopping, to be paused",
    "preempt": "stopping, to hand its slots to others",
    "drain": "stopping, as its node is taken away",
}


def in_words(job: Job) -> str:
    """The job's state; of one that is leaving, also why."""
    return _LEAVING.get(job.raw.get("stop_reason") or "", job.phase)


def clock(seconds: float) -> str:
    """Seconds as a person says them: 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
