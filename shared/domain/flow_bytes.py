"""What a phase of a freeze plan makes of a network's flow, in bytes for one sample."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from shared.domain.flow import Flow
from shared.domain.flow_needs import FlowNeeds, kept_tensors
from shared.domain.module_tree import ModuleTree

# Autocast leaves these in float32, and what they keep with them.
_FLOAT32_UNDER_AUTOCAST = ("LayerNorm", "GroupNorm")


@dataclass(frozen=True, slots=True)
class FlowBytes:
    """Of one sample, in float32, at the flow's own picture size.

    `kept` is what the forward keeps for the backward, and `kept_float32` the part of it that stays float32
    under autocast. `passing` is the most that one step of forward or backward takes beside it, `evaluating`
    the most that a forward without any gradient holds. `half_copied` names the weights of which backward
    reads a copy in half precision, under autocast.
    """

    kept: int
    kept_float32: int
    passing: int
    evaluating: int
    half_copied: frozenset[str]

    @classmethod
    def of(
        cls,
        tree: ModuleTree,
        flow: Flow,
        trainable: Collection[str],
        needs: FlowNeeds,
        evaluating: int,
    ) -> FlowBytes:
        backward = [flow.steps[number] for number in needs.backward]
        kept = kept_tensors(flow, frozenset(trainable), needs.backward)
        by_norms = {
            kept.tensor
            for step in backward
            if tree.by_path[step.module].class_name.startswith(_FLOAT32_UNDER_AUTOCAST)
            for kept in step.kept
        }
        # The gradients of a step's result and of what it read are there together.
        gradients = max((step.output_bytes + step.working_bytes for step in backward), default=0)
        read = {name for step in backward for name in step.parameters}
        return cls(
            kept=needs.kept_bytes,
            kept_float32=sum(flow.tensors[tensor] for tensor in kept & by_norms),
            passing=max(needs.transient_bytes, gradients),
            evaluating=evaluating,
            half_copied=frozenset(name for name in read if len(tree.shapes[name]) > 1),
        )
