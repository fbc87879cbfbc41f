"""What a person may ask for: the body of a feature-extraction job, field by field, with its limits."""

from __future__ import annotations

from pydantic import Field

from shared.domain.activations import Dtype, Output, Pool
from shared.domain.module_selection import ModulePatterns
from shared.domain.spec import AnyJobSpec, AnyPreprocessing, Auto, BatchSize, Normalize, check_divided

AUTO_BATCH_A_RANK = 32


class ExtractionPreprocessing(AnyPreprocessing):
    """As the network sees a picture: always whole and never augmented."""

    normalize: Normalize | None = Field(
        None, description="left out: as the job's model was trained with, else imagenet"
    )


class ExtractionSpec(AnyJobSpec):
    """The body of POST /v1/feature_extraction/jobs."""

    input_file: str = Field(min_length=1, max_length=200)
    modules: ModulePatterns = Field(description="module paths, or globs over them")
    output: Output = Field("safetensors", description="parquet: each sample's activations as one vector")
    pool: Pool = Field(
        "none", description="mean: over height and width of [B, C, H, W], over the tokens of [B, N, C]"
    )
    dtype: Dtype = "float32"
    preprocessing: ExtractionPreprocessing = Field(default_factory=ExtractionPreprocessing)
    batch_size: BatchSize | Auto = Field(
        "auto", description="global: the ranks share it; auto is 32 for each of them"
    )


def resolve_batch_size(asked: int | Auto, world_size: int) -> int:
    """The global batch size. Raises ValueError where the ranks do not divide it."""
    if asked == "auto":
        return AUTO_BATCH_A_RANK * world_size
    check_divided(asked, world_size)
    return asked
