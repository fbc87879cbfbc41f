"""What is known of each torchvision network for classification or segmentation without importing torch."""

from shared.catalog.catalog import get, names, near
from shared.catalog.flow import flow_of
from shared.catalog.model import CatalogModel, CatalogTask, PublishedWeights
from shared.catalog.outputs import outputs_of

__all__ = [
    "CatalogModel",
    "CatalogTask",
    "PublishedWeights",
    "flow_of",
    "get",
    "names",
    "near",
    "outputs_of",
]
