"""What a network can be trained for."""

from shared.domain.events import TrainerSpec
from worker.training.tasks.classification import Classification
from worker.training.tasks.task import Counts, Task

__all__ = ["Counts", "Task", "task_of"]


def task_of(spec: TrainerSpec) -> Task:
    """The task that `spec` asks for."""
    return Classification(spec.class_names, spec.hyperparameters.label_smoothing)
