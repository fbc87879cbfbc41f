"""The factor on each parameter's learning rate: `layer_decay` by depth, times the rules' own `lr_scale`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.domain.errors import Invalid
from shared.domain.freeze_rules import Step
from shared.domain.module_tree import ModuleTree, enclosing

# Far below any step that float32 weights could take, and far above where float64 rounds to 0.
LEAST_SCALE = 1e-30


def depth_factors(tree: ModuleTree, layer_decay: float | None) -> Mapping[str, float]:
    """Each parameter's factor: 1 in the head, `layer_decay` in the last block, its square in the one before.

    A parameter outside of head and blocks goes with the block that is registered nearest before it, or else
    with the first one.
    """
    if layer_decay is None:
        return {}
    if not tree.blocks:
        raise Invalid(
            "layer_decay counts blocks, and this model has none besides its head; use lr_scale in rules",
            param="freeze.layer_decay",
        )
    depths = {block: len(tree.blocks) - place for place, block in enumerate(tree.blocks)}
    factors: dict[str, float] = {}
    block = tree.blocks[0]
    for name in tree.shapes:
        block = enclosing(name, depths) or block
        factors[name] = 1.0 if enclosing(name, tree.head) is not None else layer_decay ** depths[block]
    return factors


def learning_rate_scales(step: Step, factors: Mapping[str, float]) -> dict[str, float]:
    """The factor of each trainable parameter, where it is not 1."""
    scales = {n: d.scale * factors.get(n, 1.0) for n, d in step.after.items() if d.trains}
    return {name: scale for name, scale in scales.items() if scale != 1}


def check_layer_decay(
    layer_decay: float | None, factors: Mapping[str, float], scales: Sequence[Mapping[str, float]]
) -> None:
    """Refuses a decay that no trainable parameter feels, and one that leaves some next to nothing."""
    if layer_decay is None:
        return
    felt = {name: scale for phase in scales for name, scale in phase.items() if factors[name] != 1}
    if not felt:
        raise Invalid(
            f"layer_decay {layer_decay:g} would change nothing, as only what stands at factor 1 trains; "
            "leave it out",
            param="freeze.layer_decay",
            code="no_effect",
        )
    name = min(felt, key=felt.__getitem__)
    if felt[name] < LEAST_SCALE:
        raise Invalid(
            f"layer_decay {layer_decay:g} leaves {name!r} a learning rate of {felt[name]:g} times the asked "
            "one, with which it would stand still; freeze it, or take a decay nearer to 1",
            param="freeze.layer_decay",
        )
