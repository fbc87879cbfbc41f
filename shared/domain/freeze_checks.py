"""What is refused though every pattern matches: what would come to nothing, or train nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.domain.errors import Invalid
from shared.domain.freeze_patterns import HEAD
from shared.domain.freeze_plan import normalisation_layers, still_modules
from shared.domain.freeze_rules import Decision, PlacedRule, Step
from shared.domain.freeze_spec import FreezeSpec
from shared.domain.module_tree import ModuleTree, enclosing


def check_epochs(spec: FreezeSpec, n_epochs: int) -> None:
    """Refuses an entry that the job would not live to see."""
    for i, entry in enumerate(spec.schedule):
        if entry.at_epoch >= n_epochs:
            last = f"the last one is epoch {n_epochs - 1}" if n_epochs > 1 else "its one epoch is epoch 0"
            raise Invalid(
                f"the job is over before epoch {entry.at_epoch}: n_epochs is {n_epochs}, and counted from 0 "
                f"{last}",
                param=f"freeze.schedule[{i}].at_epoch",
                code="epoch_past_end",
            )


def check_step(step: Step, tree: ModuleTree) -> None:
    """Refuses a rule that has no say from the epoch on at which it begins, and an end to all training."""
    for rule in step.rules:
        _check_not_undone(rule, step)
    for rule in step.rules:
        _check_scale_applies(rule, step)
    if step.from_epoch:
        _check_entries_change_something(step)
    _check_something_trains(step, has_head=bool(tree.head))


def check_head_trains(tree: ModuleTree, step: Step) -> None:
    """Refuses the first step of a job whose new, random head would not train in it."""
    fixed = [
        name
        for name, decision in step.after.items()
        if not decision.trains and enclosing(name, tree.head) is not None
    ]
    if fixed:
        raise Invalid(
            f"the head is new, and these rules would fix its random values in {fixed}; "
            f'add {{"train": "{HEAD}"}} as the last rule',
            param="freeze",
            code="new_head_frozen",
        )


def check_batch_norm(spec: FreezeSpec, tree: ModuleTree, trainable: Sequence[Sequence[str]]) -> None:
    """Refuses `batch_norm` "train" where no normalisation layer is still in any phase."""
    if spec.batch_norm == "freeze":
        return
    if not any(normalisation_layers(tree, still_modules(tree, set(names))) for names in trainable):
        raise Invalid(
            'batch_norm "train" would change nothing, as no normalisation layer is frozen here; leave it out',
            param="freeze.batch_norm",
            code="no_effect",
        )


def _check_not_undone(placed: PlacedRule, step: Step) -> None:
    if all(step.after[name].trains != placed.rule.trains for name in placed.names):
        later = f"later entries for epoch {step.from_epoch}" if step.from_epoch else "later rules"
        raise Invalid(
            f"{later} undo {placed.words} entirely; "
            "the last rule that matches wins, so move this one down, or drop it",
            param=placed.param,
            code="freeze_rule_undone",
        )


def _check_scale_applies(placed: PlacedRule, step: Step) -> None:
    if placed.rule.lr_scale is None:
        return
    if all(step.after[name] != placed.decision for name in placed.names):
        raise Invalid(
            f"lr_scale {placed.rule.lr_scale:g} reaches no parameter: later rules that match "
            f"what {placed.words} does give another scale, or none, which is 1; move this one down",
            param=f"{placed.param}.lr_scale",
            code="no_effect",
        )


def _check_entries_change_something(step: Step) -> None:
    """Each entry against what holds when it is read, then all of them against the phase before."""
    now = dict(step.before)
    for placed in step.rules:
        if all(now[name] == placed.decision for name in placed.names):
            raise _changes_nothing(placed, step, now)
        now.update(dict.fromkeys(placed.names, placed.decision))
    if step.after == step.before:
        raise Invalid(
            f"the entries for epoch {step.from_epoch} leave everything as it was before; drop them",
            param=step.rules[0].param,
            code="no_effect",
        )


def _changes_nothing(placed: PlacedRule, step: Step, now: Mapping[str, Decision]) -> Invalid:
    state = "trains already" if placed.rule.trains else "is frozen already"
    if any(decision.scale != 1 for decision in (now[name] for name in placed.names)):
        state += " at this learning rate"
    return Invalid(
        f"{placed.words} at epoch {step.from_epoch} changes nothing: all that it matches {state}; drop it",
        param=placed.param,
        code="no_effect",
    )


def _check_something_trains(step: Step, *, has_head: bool) -> None:
    if any(decision.trains for decision in step.after.values()):
        return
    if step.from_epoch:
        freezing = [placed for placed in step.rules if not placed.rule.trains]
        entry = f'{{"at_epoch": {step.from_epoch}, "train": "{HEAD}"}}'
        way_out = f"add {entry} behind this entry" if has_head else "let this entry freeze less"
        raise Invalid(
            f"from epoch {step.from_epoch} on nothing is left to train; {way_out}, "
            "or end the job there with n_epochs",
            param=freezing[-1].param,
            code="nothing_trainable",
        )
    way_out = f'add {{"train": "{HEAD}"}} as the last rule to train the head' if has_head else "freeze less"
    raise Invalid(
        f"nothing is left to train; {way_out}",
        param="freeze",
        code="nothing_trainable",
    )
