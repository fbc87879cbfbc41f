"""Which activations of its trained model a job is to save."""

from __future__ import annotations

from api.services.base_models import BaseModel
from shared.domain.module_selection import select_modules
from shared.domain.module_tree import ModuleTree
from shared.domain.spec import JobSpec


def resolve_capture(spec: JobSpec, base: BaseModel, tree: ModuleTree) -> list[str]:
    """The module paths that `capture` means in `tree`, whose head is the one that will be trained.

    Raises Invalid for a pattern that matches nothing, and for a module of which it is known that its output
    cannot be saved.
    """
    if spec.capture is None:
        return []
    paths = select_modules(spec.capture, tree, "capture")
    if base.outputs is not None:
        base.outputs.check(paths, "none", "capture")
    return paths
