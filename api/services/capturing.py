"""Which activations of its trained model a job is to save."""

from __future__ import annotations

from api.services.base_networks import BaseNetwork
from api.services.capacity import check_one_node
from shared.domain.module_selection import select_modules
from shared.domain.module_tree import ModuleTree
from shared.domain.spec import JobSpec


def resolve_capture(spec: JobSpec, base: BaseNetwork, tree: ModuleTree) -> list[str]:
    """The module paths that `capture` means in `tree`, whose head is the one that will be trained.

    Raises Invalid for a pattern that matches nothing, for a module of which it is known that its output
    cannot be saved, and for a job on several nodes.
    """
    if spec.capture is None:
        return []
    check_one_node(spec.resources, "activations are captured", "capture")
    paths = select_modules(spec.capture, tree, "capture")
    if base.outputs is not None:
        base.outputs.check(paths, "none", "capture")
    return paths
