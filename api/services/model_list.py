"""The models that a job may start from, described."""

from __future__ import annotations

from sqlalchemy.orm import Session

from api.schemas import LayersView, ModelView, ModuleView, TensorView, unix
from api.services.base_networks import described, own_image_size, unknown_model
from shared import catalog
from shared.catalog import CatalogModel
from shared.db.catalog_rows import all_registered, registered
from shared.db.models import RegisteredModel
from shared.domain.errors import NotFound
from shared.domain.module_tree import ModuleInfo

# torchvision's models have no date of their own; this is when its first version came out.
_CREATED = 1_476_144_000


def all_models(session: Session) -> list[ModelView]:
    """torchvision's by name, then the registered ones by name."""
    known = [_of_torchvision(catalog.get(name)) for name in catalog.names()]
    return known + [_of_registered(row) for row in all_registered(session)]


def one_model(session: Session, name: str) -> ModelView:
    """Raises NotFound with the nearest names."""
    if name in catalog.names():
        return _of_torchvision(catalog.get(name))
    return _of_registered(_registered(session, name))


def layers_of(session: Session, name: str) -> LayersView:
    """Every module of the model. Raises NotFound, and Invalid for one that could not be built."""
    known = name in catalog.names()
    tree = catalog.get(name).tree if known else described(_registered(session, name))
    return LayersView(
        id=name,
        modules=[_module(module) for module in tree.modules],
        head=list(tree.head),
        blocks=list(tree.blocks),
        aliases=dict(tree.aliases),
    )


def _registered(session: Session, name: str) -> RegisteredModel:
    row = registered(session, name)
    if row is None:
        raise unknown_model(session, name, NotFound)
    return row


def _of_torchvision(known: CatalogModel) -> ModelView:
    return ModelView(
        id=known.name,
        created=_CREATED,
        owned_by="torchvision",
        source="torchvision",
        version=None,
        hash=None,
        task=known.task,
        image_size=list(known.image_size),
        weights=[weights.name for weights in known.weights],
        num_classes=known.tree.num_classes,
        head=list(known.tree.head),
        blocks=list(known.tree.blocks),
        n_parameters=sum(known.tree.n_elements.values()),
    )


def _of_registered(row: RegisteredModel) -> ModelView:
    error = row.description.get("error")
    tree = None if error else described(row)
    size = own_image_size(row)
    return ModelView(
        id=row.name,
        created=unix(row.described_at),
        owned_by="operator",
        source="registered",
        version=row.version,
        hash=row.hash,
        task=row.description.get("task", "classification"),
        image_size=list(size) if size else None,
        weights=[],
        num_classes=tree.num_classes if tree else None,
        head=list(tree.head) if tree else [],
        blocks=list(tree.blocks) if tree else [],
        n_parameters=sum(tree.n_elements.values()) if tree else None,
        error=error,
    )


def _module(module: ModuleInfo) -> ModuleView:
    return ModuleView(
        path=module.path,
        class_name=module.class_name,
        parameters=[TensorView(name=p.name, shape=list(p.shape)) for p in module.parameters],
        buffers=[TensorView(name=b.name, shape=list(b.shape)) for b in module.buffers],
    )
