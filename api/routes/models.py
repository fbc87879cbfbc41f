"""/v1/models: what a job may start from."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import ScopeDep
from api.errors import documented
from api.query import After, Limit
from api.schemas import LayersView, ListOf, ModelView
from api.services.model_list import all_models, layers_of, one_model
from api.views import slice_of

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", responses=documented(404))
def list_all(scope: ScopeDep, after: After = None, limit: Limit = 1000) -> ListOf[ModelView]:
    """torchvision's models, and behind them those that the nodes have registered."""
    return slice_of(all_models(scope.session), after, limit)


@router.get("/{name}", responses=documented(404))
def get_one(name: str, scope: ScopeDep) -> ModelView:
    """One model, with its weights, its head, and its blocks in forward order."""
    return one_model(scope.session, name)


@router.get("/{name}/layers", responses=documented(422, 404))
def layers(name: str, scope: ScopeDep) -> LayersView:
    """Every module and parameter of the model: the names that a freeze spec may use."""
    return layers_of(scope.session, name)
