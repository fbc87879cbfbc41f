"""What the shapes of files have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """A file's shape: unknown fields are errors, so two versions never misread one another in silence."""

    model_config = ConfigDict(extra="forbid")
