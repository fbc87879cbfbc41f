"""What is known of each torchvision classification model without importing torch."""

from shared.catalog.catalog import get, names, near
from shared.catalog.model import CatalogModel, PublishedWeights
from shared.catalog.outputs import outputs_of

__all__ = ["CatalogModel", "PublishedWeights", "get", "names", "near", "outputs_of"]
