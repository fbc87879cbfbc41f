"""The latest figures of a job's training, as a person follows them."""

from __future__ import annotations

from dataclasses import dataclass

from thaw.shapes import Job


@dataclass(frozen=True)
class Figures:
    """What is known now; what is not yet known is None. Epochs count from 1 here, as people do."""

    phase: str
    epoch: int | None = None
    n_epochs: int | None = None
    step: int | None = None
    total_steps: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    held_out_accuracy: float | None = None
    eta_s: float | None = None

    @classmethod
    def of(cls, job: Job) -> Figures:
        """The figures in a job as the server gave it."""
        progress = job.raw.get("progress") or {}
        train = progress.get("train") or {}
        validation = progress.get("validation") or {}
        running = job.phase == "running"
        return cls(
            phase=progress.get("phase") or job.phase if running else job.phase,
            epoch=train["epoch"] + 1 if train else None,
            n_epochs=train.get("n_epochs"),
            step=train.get("step"),
            total_steps=train.get("total_steps"),
            loss=train.get("loss"),
            accuracy=train.get("accuracy"),
            held_out_accuracy=validation.get("accuracy"),
            eta_s=train.get("eta_s") if running and progress.get("phase") == "training" else None,
        )

    @property
    def done(self) -> float:
        """The part of the training's steps that is done, from 0 to 1."""
        return self.step / self.total_steps if self.step is not None and self.total_steps else 0.0

    def parts(self) -> list[str]:
        """The figures as short texts: epoch, step, loss, accuracy, time left."""
        texts = [self.phase]
        if self.epoch is not None:
            texts += [f"epoch {self.epoch}/{self.n_epochs}", f"step {self.step}/{self.total_steps}"]
        if self.loss is not None and self.accuracy is not None:
            texts += [f"loss {self.loss:.3f}", f"accuracy {self.accuracy:.3f}"]
        if self.held_out_accuracy is not None:
            texts.append(f"held-out accuracy {self.held_out_accuracy:.3f}")
        if self.eta_s is not None:
            texts.append(f"{clock(self.eta_s)} left")
        return texts


def clock(seconds: float) -> str:
    """Seconds as a person says them: 42s, 3m05s, 2h10m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}m{rest:02}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02}m"
