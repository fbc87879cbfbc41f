"""The network that a job starts from: torchvision's, a registered one, or another job's result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from shared import catalog
from shared.catalog import CatalogModel
from shared.db.catalog_rows import all_registered, registered
from shared.db.models import Job, RegisteredModel
from shared.db.scope import Scope
from shared.domain.errors import Conflict, Invalid, NotFound
from shared.domain.flow import Flow
from shared.domain.job import FINAL_JOB_STATES, JobState
from shared.domain.job_kind import JobKind
from shared.domain.module_outputs import Outputs
from shared.domain.module_tree import ModuleTree
from shared.domain.near_names import nearest
from shared.domain.resolved import Architecture, ResolvedJob
from shared.domain.spec import TaskName
from shared.domain.training_steps import TrainingStep, read_steps

JOB_ID_START = f"{JobKind.FINE_TUNING.id_start}-"


@dataclass(frozen=True)
class BaseNetwork:
    """A network as it is before this job changes it.

    `image_size` is (height, width) in pixels, None where only the job can say it. `class_names` are what its
    head answers and `trained_for` is the head's task, None where that is not known. `waits_for` is the job
    whose result is not there yet. `made_for` is the task whose form its answers have. `outputs` are those of
    its modules, as far as they are known. `training_steps` are its own, where it brings any.
    """

    architecture: Architecture
    tree: ModuleTree
    image_size: tuple[int, int] | None
    known: CatalogModel | None
    class_names: list[str] | None = None
    job: Job | None = None
    trained_for: TaskName | None = None
    made_for: TaskName = "classification"
    outputs: Outputs | None = None
    described_flow: Mapping[str, Any] | None = None
    flow_error: str | None = None
    training_steps: tuple[TrainingStep, ...] = ()

    @property
    def flow(self) -> Flow | None:
        """How data flows through it, at whatever picture size; None where that is not known."""
        if self.known is not None:
            return catalog.flow_of(self.known.name)
        return Flow.from_data(self.described_flow) if self.described_flow else None

    @property
    def why_no_flow(self) -> str | None:
        """In words; None where the flow is known."""
        if self.known is not None or self.described_flow:
            return None
        return self.flow_error or "a worker of an earlier version described it"

    @property
    def registered_key(self) -> tuple[str, str] | None:
        """Name and hash that a node must offer."""
        made = self.architecture
        return (made.name, made.hash) if made.source == "registered" and made.hash else None

    @property
    def waits_for(self) -> str | None:
        """The job that must succeed first."""
        return self.job.id if self.job is not None and self.job.state is not JobState.SUCCEEDED else None

    def sized(self, size: tuple[int, int]) -> BaseNetwork:
        """The same built for pictures of `size` (height, width in pixels). Raises Invalid where it cannot."""
        if self.known is None or self.image_size is None:
            return replace(self, image_size=size)
        tree = self.known.tree_at(size)
        if self.job is None:
            return replace(self, image_size=size, tree=tree)
        if tree.shapes != self.known.tree_at(self.image_size).shapes:
            own = "x".join(map(str, self.image_size))
            raise Invalid(
                f"the model of job {self.job.id} was made for pictures of {own} and takes no other size",
                param="preprocessing.image_size",
            )
        return replace(self, image_size=size)

    def with_num_classes(self, num_classes: int) -> BaseNetwork:
        """The same network as it is with another number of classes."""
        tree = self.tree.with_num_classes(num_classes)
        return replace(
            self, tree=tree, architecture=self.architecture.model_copy(update={"num_classes": num_classes})
        )


def find_base(scope: Scope, model: str, *, wait_for_model: bool) -> BaseNetwork:
    """What `model` names. Raises Invalid with the nearest names, Conflict for a job without a result."""
    if model.startswith(JOB_ID_START):
        return _of_job(scope, model, wait_for_model=wait_for_model)
    if model.startswith(f"{JobKind.FEATURE_EXTRACTION.id_start}-"):
        raise Invalid(
            f"{model} is a feature extraction, which makes no model; name the model that it ran",
            param="model",
            code="no_model",
        )
    if wait_for_model:
        raise Invalid(
            "wait_for_model is for a model 'ftjob-...'; leave it out",
            param="wait_for_model",
            code="no_effect",
        )
    if model in catalog.names():
        return _of_torchvision(catalog.get(model))
    row = registered(scope.session, model)
    if row is None:
        raise unknown_model(scope.session, model, Invalid)
    return _of_registered(row)


def unknown_model(session: Session, name: str, kind: type[Invalid] | type[NotFound]) -> Invalid | NotFound:
    """The error for a name that is neither torchvision's nor registered."""
    names = [*catalog.names(), *(row.name for row in all_registered(session))]
    return kind(
        f"no model {name!r}; the nearest names are {', '.join(nearest(name, names))}",
        param="model",
        code="unknown_model",
    )


def described(row: RegisteredModel) -> ModuleTree:
    """The tree of a registered model. Raises Invalid when its node could not build it."""
    description: dict[str, Any] = row.description
    if description.get("error"):
        raise Invalid(
            f"the registered model {row.name!r} cannot be built on its node: {description['error']}",
            param="model",
            code="model_cannot_be_built",
        )
    return ModuleTree.from_data(description["tree"])


def own_image_size(row: RegisteredModel) -> tuple[int, int] | None:
    """(height, width) that the model was made for, where its package says so."""
    size = row.description.get("image_size")
    return (int(size[0]), int(size[1])) if size else None


def _of_torchvision(known: CatalogModel) -> BaseNetwork:
    made = _architecture("torchvision", known.name, known.tree)
    outputs = catalog.outputs_of(known.name)
    return BaseNetwork(made, known.tree, known.image_size, known, made_for=known.task, outputs=outputs)


def _of_registered(row: RegisteredModel) -> BaseNetwork:
    tree = described(row)
    made = _architecture("registered", row.name, tree, version=row.version, hash=row.hash)
    recorded, steps = row.description.get("outputs"), row.description.get("training_steps")
    return BaseNetwork(
        made,
        tree,
        own_image_size(row),
        None,
        made_for=row.description.get("task", "classification"),
        outputs=Outputs.from_data(recorded) if recorded else None,
        described_flow=row.description.get("flow"),
        flow_error=row.description.get("flow_error"),
        training_steps=read_steps(steps) if steps else (),
    )


def _of_job(scope: Scope, job_id: str, *, wait_for_model: bool) -> BaseNetwork:
    if ":" in job_id:
        made_by = job_id.partition(":")[0]
        raise Invalid(
            f"{job_id!r} names a checkpoint, which holds what was trained by then and no whole model; a job "
            f"starts from a result: {made_by!r}",
            param="model",
            code="no_model",
        )
    try:
        job = scope.of_kind(JobKind.FINE_TUNING).get(Job, job_id)
    except NotFound as error:
        raise Invalid(
            f"{error.message}; 'model' names a torchvision model, a registered one, or a job of your team",
            param="model",
            code="unknown_model",
        ) from error
    _check_has_result(job, wait_for_model)
    done = ResolvedJob.model_validate(job.resolved)
    made = done.target
    size = (done.preprocessing.height, done.preprocessing.width)
    origin = _origin(scope.session, made).sized(size)
    tree = (
        origin.tree.with_head(made.head[:1]).with_num_classes(made.num_classes) if made.head else origin.tree
    )
    return replace(
        origin, architecture=made, tree=tree, class_names=done.class_names, job=job, trained_for=done.task
    )


def _check_has_result(job: Job, wait_for_model: bool) -> None:
    if job.state is JobState.SUCCEEDED:
        return
    if job.state in FINAL_JOB_STATES:
        raise Conflict(f"job {job.id} has no model: it is {job.state}", param="model", code="model_not_ready")
    if not wait_for_model:
        raise Conflict(
            f'job {job.id} has no model yet: it is {job.state}; wait for it, or send "wait_for_model": true',
            param="model",
            code="model_not_ready",
        )


def _origin(session: Session, made: Architecture) -> BaseNetwork:
    """The network as its author wrote it, in the very version that the job was made from."""
    if made.source == "torchvision":
        return _of_torchvision(catalog.get(made.name))
    row = session.get(RegisteredModel, (made.name, made.hash))
    if row is None:
        raise Invalid(f"the registered model {made.name!r} of that job is not known any more", param="model")
    return _of_registered(row)


def _architecture(source: Any, name: str, tree: ModuleTree, **registered: str) -> Architecture:
    return Architecture(
        source=source, name=name, num_classes=tree.num_classes or 0, head=list(tree.head), **registered
    )
