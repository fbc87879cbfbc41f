"""Where a trainer computes: one of the two backends of torch that Thaw knows."""

from __future__ import annotations

from typing import Literal

Device = Literal["cuda", "cpu"]
