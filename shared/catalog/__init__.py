"""What is known of each torchvision classification model without importing torch."""

from shared.catalog.catalog import get, names, near
from shared.catalog.model import CatalogModel, PublishedWeights

__all__ = ["CatalogModel", "PublishedWeights", "get", "names", "near"]
