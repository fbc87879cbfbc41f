"""A small network as data, whose every byte can be counted by hand, and jobs on it.

conv -> norm (BatchNorm2d) -> scale (LayerNorm) -> drop (Dropout, no parameters) -> fc, the head.
"""

from __future__ import annotations

from typing import Any

from shared.domain.flow import Flow, FlowStep, Kept, Varies
from shared.domain.freeze import parse_freeze, resolve
from shared.domain.module_tree import ModuleInfo, ModuleTree, TensorInfo
from shared.domain.plan import Subject
from shared.domain.resolved import Architecture, NoWeights, ResolvedJob, ResolvedPreprocessing
from shared.domain.spec import Hyperparameters, resolve_hyperparameters

SIZE = (10, 20)
TREE = ModuleTree(
    modules=(
        ModuleInfo("", "Net"),
        ModuleInfo("conv", "Conv2d", (TensorInfo("weight", (5, 3, 2, 2)),)),
        ModuleInfo(
            "norm",
            "BatchNorm2d",
            (TensorInfo("weight", (5,)), TensorInfo("bias", (5,))),
            (TensorInfo("running_mean", (5,)), TensorInfo("num_batches_tracked", (), "int64")),
        ),
        ModuleInfo("scale", "LayerNorm", (TensorInfo("weight", (5,)),)),
        ModuleInfo("drop", "Dropout"),
        ModuleInfo("fc", "Linear", (TensorInfo("weight", (7, 5)), TensorInfo("bias", (7,)))),
    ),
    aliases={},
    head=("fc",),
    blocks=("conv", "norm", "scale"),
    num_classes=7,
)
# conv's input, norm's, scale's, drop's mask, fc's.
TENSORS = (2_400, 1_000, 1_100, 300, 1_200)
FLOW = Flow(
    SIZE,
    (
        FlowStep(
            "conv",
            (),
            ("conv.weight",),
            (Kept(0, (), ("conv.weight",)),),
            output_bytes=1_000,
            working_bytes=1_600,
        ),
        FlowStep(
            "norm",
            (0,),
            ("norm.weight", "norm.bias"),
            (Kept(1, (0,), ("norm.weight",)),),
            output_bytes=1_000,
            working_bytes=1_000,
            varies=Varies.TRAINING,
        ),
        FlowStep(
            "scale",
            (1,),
            ("scale.weight",),
            (Kept(2, (1,), ("scale.weight",)),),
            output_bytes=1_000,
            working_bytes=1_000,
        ),
        FlowStep(
            "drop", (2,), (), (Kept(3, (2,)),), output_bytes=800, working_bytes=1_200, varies=Varies.TRAINING
        ),
        FlowStep(
            "fc",
            (3,),
            ("fc.weight", "fc.bias"),
            (Kept(4, (), ("fc.weight",)),),
            output_bytes=200,
            working_bytes=200,
        ),
    ),
    TENSORS,
)

HEAD_THEN_ALL = {
    "rules": [{"freeze": "**"}, {"train": "@head"}],
    "schedule": [{"at_epoch": 2, "train": "**"}],
}
HEAD_THEN_ALL_BUT_CONV = {
    "rules": [{"freeze": "**"}, {"train": "@head"}],
    "schedule": [{"at_epoch": 1, "train": ["norm", "scale"]}],
}


def subject(
    freeze: Any = "none",
    *,
    flow: Flow | None = FLOW,
    size: tuple[int, int] = SIZE,
    world_size: int = 1,
    device: Any = "cuda",
    validates: bool = False,
    augment: Any = "none",
    replace_head: bool = False,
    task: Any = "classification",
    **hyperparameters: Any,
) -> Subject:
    """A job on the network."""
    made = Architecture(source="torchvision", name="net", num_classes=7, head=["fc"])
    spec = parse_freeze(freeze)
    asked = Hyperparameters.model_validate({"precision": "fp32", "batch_size": 4, **hyperparameters})
    job = ResolvedJob(
        task=task,
        base=made,
        target=made,
        replace_head=replace_head,
        weights=NoWeights(),
        class_names=[],
        freeze=spec,
        hyperparameters=resolve_hyperparameters(asked, world_size),
        preprocessing=ResolvedPreprocessing(
            height=size[0],
            width=size[1],
            mean=[0.0, 0.0, 0.0],
            std=[1.0, 1.0, 1.0],
            augment=augment,
            max_unreadable_fraction=0.0,
        ),
        validation_fraction=None,
        max_duration_s=None,
        seed=0,
    )
    why_no_flow = None if flow else "its package tells no picture size"
    return Subject(job, resolve(spec, TREE), TREE, flow, why_no_flow, world_size, device, validates)
