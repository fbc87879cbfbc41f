"""What a network can be trained for."""

from shared.domain.events import TrainerSpec
from worker.training.own_steps.task import OwnSteps
from worker.training.tasks.classification import Classification
from worker.training.tasks.multilabel import Multilabel
from worker.training.tasks.reconstruction import Reconstruction
from worker.training.tasks.segmentation import Segmentation
from worker.training.tasks.task import Counts, Task

__all__ = ["Counts", "Task", "task_of"]


def task_of(spec: TrainerSpec) -> Task | OwnSteps:
    """The task that `spec` asks for."""
    smoothing = spec.hyperparameters.label_smoothing
    match spec.task:
        case "classification":
            return Classification(spec.class_names, smoothing)
        case "multilabel":
            return Multilabel(spec.class_names, smoothing)
        case "segmentation":
            return Segmentation(spec.class_names, smoothing)
        case "reconstruction":
            return Reconstruction(spec.preprocessing.std)
        case "custom":
            return OwnSteps()
