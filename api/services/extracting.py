"""A feature extraction comes in: decided in every detail, stored, and left to the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from api.services.base_networks import BaseNetwork
from api.services.capacity import check_capacity, check_one_node
from api.services.data_files import data_set, task_of
from api.services.job_columns import job_columns
from api.services.preprocessing import NORMALISATION, Normalisation, resolve_preprocessing
from api.services.storable_texts import check_storable
from api.services.team_limits import check_job, check_team
from api.services.weights import Start, find_start
from shared.db.jobs import add_job
from shared.db.keys import Caller
from shared.db.models import File, Job
from shared.db.scope import Scope
from shared.domain.activations import ActivationsWanted
from shared.domain.errors import Invalid, TooLarge
from shared.domain.extraction import ResolvedExtraction
from shared.domain.extraction_spec import ExtractionSpec, resolve_batch_size
from shared.domain.job_kind import JobKind
from shared.domain.module_outputs import estimated_bytes
from shared.domain.module_selection import select_modules
from shared.domain.resolved import ResolvedJob, ResolvedPreprocessing
from shared.domain.spec import TaskName
from shared.settings import Settings

Shapes = Mapping[str, list[int] | None]


@dataclass(frozen=True)
class Resolution:
    """An extraction that can be run, and where its parts come from."""

    job: ResolvedExtraction
    start: Start
    file: File


def submit_extraction(
    scope: Scope, caller: Caller, settings: Settings, spec: ExtractionSpec, job_id: str
) -> Job:
    """Store what `spec` asks for under this new id. Raises ThawErrors, and then nothing is stored."""
    check_job(scope, spec)
    found = resolve_extraction(scope, settings, spec)
    job = Job(
        id=job_id,
        kind=JobKind.FEATURE_EXTRACTION,
        training_file_id=found.file.id,
        resolved=found.job.model_dump(mode="json"),
        memory_bytes=spec.resources.min_memory_bytes,
        **job_columns(caller, settings, spec, found.start),
    )
    check_team(scope)
    add_job(scope, job, actor=caller.actor)
    return job


def resolve_extraction(scope: Scope, settings: Settings, spec: ExtractionSpec) -> Resolution:
    """Decide everything that the spec leaves open. Raises ThawErrors that name the field."""
    check_storable(spec.model_dump(mode="json"))
    file = data_set(scope, spec.input_file, "input_file")
    start = find_start(scope, spec, spec.preprocessing)
    base = start.base
    preprocessing = _preprocessing(spec, start)
    wanted = ActivationsWanted(
        modules=select_modules(spec.modules, base.tree, "modules"),
        output=spec.output,
        pool=spec.pool,
        dtype=spec.dtype,
        max_bytes=settings.max_extraction_bytes,
    )
    shapes = _shapes(base, wanted, preprocessing)
    estimate = estimated_bytes(list(shapes.values()), wanted, int(file.details["n_samples"]))
    _check_size(estimate, wanted)
    check_one_node(spec.resources, "activations are extracted", "resources.nodes")
    check_capacity(scope.session, spec.resources, base.registered_key)
    job = ResolvedExtraction(
        target=base.architecture,
        weights=start.weights,
        task=_labels_as(task_of(file)),
        class_names=file.details["class_names"],
        wanted=wanted,
        shapes=dict(shapes),
        estimated_bytes=estimate,
        batch_size=_batch_size(spec),
        preprocessing=preprocessing,
        max_duration_s=spec.max_duration_s,
        seed=spec.seed,
    )
    return Resolution(job, start, file)


def _labels_as(task: TaskName) -> TaskName:
    """How the labels are read: as classes, where they tell any, else not at all."""
    return task if task in ("classification", "multilabel") else "reconstruction"


def _preprocessing(spec: ExtractionSpec, start: Start) -> ResolvedPreprocessing:
    return resolve_preprocessing(
        spec.preprocessing, start.base, start.weights, normalisation=_normalisation(spec, start.base)
    )


def _normalisation(spec: ExtractionSpec, base: BaseNetwork) -> Normalisation:
    """As asked; else as the network was trained to see pictures."""
    asked = spec.preprocessing.normalize
    if asked is None and base.job is not None:
        trained = ResolvedJob.model_validate(base.job.resolved).preprocessing
        return trained.mean, trained.std
    return NORMALISATION[asked or "imagenet"]


def _shapes(base: BaseNetwork, wanted: ActivationsWanted, preprocessing: ResolvedPreprocessing) -> Shapes:
    """What is saved of each module, as far as it is known. Raises Invalid for one that cannot be saved."""
    if base.outputs is None:
        return dict.fromkeys(wanted.modules)
    outputs = base.outputs.with_num_classes(base.architecture.num_classes)
    outputs.check(wanted.modules, wanted.pool, "modules")
    size = (preprocessing.height, preprocessing.width)
    return {path: outputs.saved_shape(path, wanted, size) for path in wanted.modules}


def _batch_size(spec: ExtractionSpec) -> int:
    try:
        return resolve_batch_size(spec.batch_size, spec.resources.world_size)
    except ValueError as error:
        raise Invalid(str(error), param="batch_size") from error


def _check_size(estimate: int | None, wanted: ActivationsWanted) -> None:
    if estimate is not None and estimate > wanted.max_bytes:
        raise TooLarge(
            f"these activations would take {estimate:,} bytes, and this server allows {wanted.max_bytes:,}; "
            'name fewer modules, or ask for pool "mean" or dtype "float16"',
            param="modules",
            code="too_large",
        )
