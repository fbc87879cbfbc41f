"""From what a person asked for to a job with every default decided, or what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from api.services.base_networks import BaseNetwork
from api.services.capacity import check_capacity
from api.services.capturing import resolve_capture
from api.services.data_files import DataFiles, find_data
from api.services.plan_cache import PlanCache
from api.services.planning import JobPlan, plan_job
from api.services.preprocessing import NORMALISATION, resolve_preprocessing
from api.services.storable_texts import check_storable
from api.services.task_fit import check_task
from api.services.weights import Start, find_start
from shared.db.scope import Scope
from shared.domain.effects import check_warmup
from shared.domain.errors import Invalid
from shared.domain.module_tree import ModuleTree
from shared.domain.resolved import (
    Architecture,
    ResolvedJob,
    ResolvedPreprocessing,
    Weights,
)
from shared.domain.spec import (
    JobSpec,
    Preprocessing,
    ResolvedHyperparameters,
    TaskName,
    resolve_hyperparameters,
)


@dataclass(frozen=True)
class Resolution:
    """A job that can be run, and where its parts come from."""

    job: ResolvedJob
    plan: JobPlan
    start: Start
    data: DataFiles


def resolve_job(scope: Scope, spec: JobSpec, plans: PlanCache) -> Resolution:
    """Decide everything that the spec leaves open. Raises ThawErrors that name the field."""
    check_storable(spec.model_dump(mode="json"))
    data = find_data(scope, spec)
    start = find_start(scope, spec, spec.preprocessing)
    check_task(spec, start.base)
    base = _with_known_head(start.base, spec)
    tree, replace_head = _decide_head(spec, base, data.class_names)
    hyperparameters = _hyperparameters(spec, data)
    nodes = check_capacity(scope.session, spec.resources, base.registered_key)
    job = ResolvedJob(
        task=spec.task,
        base=base.architecture,
        target=_target(base.architecture, tree),
        replace_head=replace_head,
        weights=start.weights,
        class_names=data.class_names or [],
        freeze=spec.freeze,
        hyperparameters=hyperparameters,
        preprocessing=_preprocessing(spec.preprocessing, base, start.weights),
        validation_fraction=spec.validation_fraction,
        max_duration_s=spec.max_duration_s,
        seed=spec.seed,
        capture=resolve_capture(spec, base, tree),
    )
    plan = plan_job(plans, spec, job, replace(base, tree=tree), nodes)
    return Resolution(job, plan, start, data)


def _with_known_head(base: BaseNetwork, spec: JobSpec) -> BaseNetwork:
    """A network without a head of its own has the one that the job names."""
    if base.tree.head or spec.head is None or spec.head.module is None:
        return base
    tree = base.tree.with_head([spec.head.module])
    return replace(base, architecture=_target(base.architecture, tree), tree=tree)


def _decide_head(spec: JobSpec, base: BaseNetwork, class_names: list[str] | None) -> tuple[ModuleTree, bool]:
    """The tree that will be trained, and whether its head is new: unasked, one that fits stays."""
    asked, tree = spec.head, base.tree
    if spec.task in ("reconstruction", "custom"):
        return tree, False
    if asked is None and (class_names is None or _head_fits(base, spec.task, class_names)):
        return tree, False
    if asked is not None and asked.module is not None:
        tree = tree.with_head([asked.module])
    num_classes = asked.num_classes if asked is not None else None
    if class_names is not None and num_classes not in (None, len(class_names)):
        raise Invalid(
            f"the head has {num_classes} classes and the training file has {len(class_names)}: "
            f"{', '.join(class_names[:20])}; leave num_classes out, or give {len(class_names)}",
            param="head.num_classes",
            code="wrong_head_size",
        )
    wanted = num_classes or (len(class_names) if class_names else tree.num_classes)
    if wanted is None:
        raise Invalid("without a training file, num_classes must be given", param="head.num_classes")
    return tree.with_num_classes(wanted), True


def _head_fits(base: BaseNetwork, task: TaskName, class_names: list[str]) -> bool:
    """As many classes; and the same ones and task, where it is known what the head was trained for."""
    if base.trained_for not in (None, task):
        return False
    known = base.class_names
    return base.tree.num_classes == len(class_names) and known in (None, [], class_names)


def _target(base: Architecture, tree: ModuleTree) -> Architecture:
    return base.model_copy(update={"num_classes": tree.num_classes or 0, "head": list(tree.head)})


def _hyperparameters(spec: JobSpec, data: DataFiles) -> ResolvedHyperparameters:
    n_training, world_size = data.n_training(spec.validation_fraction), spec.resources.world_size
    try:
        decided = resolve_hyperparameters(spec.hyperparameters, world_size, n_training)
    except ValueError as error:
        raise Invalid(str(error), param="hyperparameters.batch_size") from error
    if n_training is not None:
        check_warmup(decided, n_training, world_size)
    return decided


def _preprocessing(asked: Preprocessing, base: BaseNetwork, weights: Weights) -> ResolvedPreprocessing:
    return resolve_preprocessing(
        asked, base, weights, normalisation=NORMALISATION[asked.normalize], augment=asked.augment
    )
