"""Which weights a job starts from."""

from __future__ import annotations

from dataclasses import dataclass

from api.services.base_networks import BaseNetwork, find_base
from shared.db.models import File
from shared.db.scope import Scope
from shared.domain.errors import Invalid, NotFound
from shared.domain.module_tree import ModuleTree, join
from shared.domain.resolved import JobWeights, NoWeights, PublishedWeights, UploadedWeights, Weights
from shared.domain.spec import AnyJobSpec, AnyPreprocessing

_DEFAULT = "DEFAULT"
_NONE = "none"
_FILE_ID_START = "file-"
_SHOWN = 3


@dataclass(frozen=True)
class Start:
    """The base as the weights fit it, and the weights."""

    base: BaseNetwork
    weights: Weights
    file: File | None = None


def find_start(scope: Scope, spec: AnyJobSpec, preprocessing: AnyPreprocessing) -> Start:
    """What `model` and `weights` name, built for the size of picture that was asked for."""
    base = find_base(scope, spec.model, wait_for_model=spec.wait_for_model)
    size_is_given = preprocessing.image_size is not None
    if size_is_given:
        base = base.sized(preprocessing.size((0, 0)))
    return decide_weights(scope, base, spec.weights, size_is_given=size_is_given)


def decide_weights(scope: Scope, base: BaseNetwork, asked: str | None, *, size_is_given: bool) -> Start:
    """Left out: a job's own, torchvision's default, else none. Raises Invalid with what there is.

    Published weights bring their picture size with them, unless the person has given one.
    """
    if base.job is not None:
        if asked is not None:
            raise Invalid(
                f"a model 'ftjob-...' brings its own weights; leave 'weights' out (got {asked!r})",
                param="weights",
            )
        return Start(base, JobWeights(job_id=base.job.id))
    if asked == _NONE or (asked is None and not (base.known and base.known.weights)):
        return Start(base, NoWeights())
    if asked is not None and asked.startswith(_FILE_ID_START):
        return _uploaded(scope, base, asked)
    return _published(base, asked or _DEFAULT, size_is_given=size_is_given)


def _published(base: BaseNetwork, name: str, *, size_is_given: bool) -> Start:
    if base.known is None:
        raise Invalid(
            f"the registered model {base.architecture.name!r} has no published weights, so {name!r} means "
            f"nothing; give {_NONE!r}, or a safetensors file 'file-...'",
            param="weights",
            code="unknown_weights",
        )
    found = base.known.published(name)
    as_published = base.sized((found.crop_size, found.crop_size))
    if size_is_given and as_published.tree.shapes != base.tree.shapes:
        raise Invalid(
            f"the weights {found.name} are for pictures of {found.crop_size}x{found.crop_size} and fit no "
            "other size; leave image_size out",
            param="preprocessing.image_size",
        )
    weights = PublishedWeights(
        name=found.name,
        url=found.url,
        file_name=found.url.rpartition("/")[2],
        sha256=found.sha256_prefix,
    )
    return Start(base if size_is_given else as_published, weights)


def _uploaded(scope: Scope, base: BaseNetwork, file_id: str) -> Start:
    try:
        file = scope.get(File, file_id, share=True)
    except NotFound as error:
        raise Invalid(error.message, param="weights", code="unknown_file") from error
    if file.format != "weights":
        raise Invalid(
            f"{file_id} is a data set ({file.format}), and 'weights' needs a safetensors file",
            param="weights",
        )
    shapes: dict[str, list[int]] = file.details["tensors"]
    fitted = _with_classes_of(base, shapes)
    _check_fits(fitted.tree, shapes, file_id)
    return Start(fitted, UploadedWeights(file_id=file_id), file)


def _with_classes_of(base: BaseNetwork, shapes: dict[str, list[int]]) -> BaseNetwork:
    """The file's own number of classes, as the shape of its head tells it."""
    shape = shapes.get(join(base.tree.head[0], "weight")) if base.tree.head else None
    if not shape or shape[0] == base.tree.num_classes:
        return base
    return base.with_num_classes(shape[0])


def _check_fits(tree: ModuleTree, shapes: dict[str, list[int]], file_id: str) -> None:
    wrong = [
        f"{name} is {shapes.get(name, 'missing')} and must be {list(shape)}"
        for name, shape in tree.shapes.items()
        if shapes.get(name) != list(shape)
    ]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise Invalid(
            f"the weights in {file_id} do not fit the model: {'; '.join(wrong[:_SHOWN])}{more}",
            param="weights",
            code="weights_do_not_fit",
        )
