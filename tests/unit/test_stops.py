"""What asking a job to stop or to go on means in each state."""

from __future__ import annotations

from itertools import product

import pytest

from shared.domain.errors import Conflict
from shared.domain.job import AFTER_STOP, FINAL_JOB_STATES, JOB_TRANSITIONS, JobState, StopReason
from shared.domain.stops import Change, Standing, asked_to_stop, may_go_on

CANCEL, PAUSE, PREEMPT, DRAIN = StopReason.CANCEL, StopReason.PAUSE, StopReason.PREEMPT, StopReason.DRAIN
WITHOUT_SLOTS = (JobState.VALIDATING_FILES, JobState.QUEUED, JobState.PAUSED)


@pytest.mark.parametrize(("state", "asked"), [*product(sorted(FINAL_JOB_STATES), StopReason)])
def test_what_is_over_is_neither_stopped_nor_resumed(state: JobState, asked: StopReason) -> None:
    for ask in (lambda job: asked_to_stop(job, asked), lambda job: may_go_on(job, is_changed=False)):
        with pytest.raises(Conflict, match=f"job j is over already: {state}") as refused:
            ask(Standing("j", state))
        assert refused.value.code == "job_is_final"


@pytest.mark.parametrize(("state", "asked"), [*product((JobState.DISPATCHED, JobState.RUNNING), StopReason)])
def test_a_job_with_slots_leaves_them_first(state: JobState, asked: StopReason) -> None:
    assert asked_to_stop(Standing("j", state), asked) == Change(JobState.STOPPING, asked)


@pytest.mark.parametrize(("state", "asked"), [*product(WITHOUT_SLOTS, StopReason)])
def test_a_job_without_slots_goes_where_it_is_asked_at_once(state: JobState, asked: StopReason) -> None:
    job = Standing("j", state)
    if asked in (PREEMPT, DRAIN):
        with pytest.raises(Conflict, match="holds no slots") as refused:
            asked_to_stop(job, asked)
        assert refused.value.code == "job_holds_no_slots"
    elif asked is PAUSE and state is JobState.PAUSED:
        assert asked_to_stop(job, asked) is None
    else:
        assert asked_to_stop(job, asked) == Change(AFTER_STOP[asked])


@pytest.mark.parametrize(
    ("leaving", "asked", "becomes"),
    [
        (PAUSE, PAUSE, None),
        (CANCEL, CANCEL, None),
        (PAUSE, CANCEL, CANCEL),
        (DRAIN, CANCEL, CANCEL),
        (PREEMPT, PAUSE, PAUSE),
        (DRAIN, PAUSE, PAUSE),
        (DRAIN, PREEMPT, None),
        (PREEMPT, DRAIN, None),
        (PAUSE, PREEMPT, None),
        (PAUSE, DRAIN, None),
        (CANCEL, DRAIN, None),
        (CANCEL, PREEMPT, None),
    ],
)
def test_of_two_wishes_for_a_job_that_leaves_the_more_lasting_counts(
    leaving: StopReason, asked: StopReason, becomes: StopReason | None
) -> None:
    change = asked_to_stop(Standing("j", JobState.STOPPING, leaving), asked)
    assert change == (None if becomes is None else Change(JobState.STOPPING, becomes))


def test_what_is_being_cancelled_cannot_be_paused() -> None:
    with pytest.raises(Conflict, match="is being cancelled") as refused:
        asked_to_stop(Standing("j", JobState.STOPPING, CANCEL), PAUSE)
    assert refused.value.code == "job_is_cancelled"


@pytest.mark.parametrize("is_changed", [False, True])
def test_only_a_paused_job_is_let_go_on(is_changed: bool) -> None:
    assert may_go_on(Standing("j", JobState.PAUSED), is_changed=is_changed)
    for leaving, code in ((PAUSE, "job_is_stopping"), (CANCEL, "job_is_cancelled")):
        with pytest.raises(Conflict) as refused:
            may_go_on(Standing("j", JobState.STOPPING, leaving), is_changed=is_changed)
        assert refused.value.code == code


@pytest.mark.parametrize(
    "job",
    [
        *(Standing("j", state) for state in (JobState.QUEUED, JobState.DISPATCHED, JobState.RUNNING)),
        *(Standing("j", JobState.STOPPING, leaving) for leaving in (DRAIN, PREEMPT)),
    ],
)
def test_what_goes_on_already_is_left_as_it_is_but_never_changed(job: Standing) -> None:
    assert not may_go_on(job, is_changed=False)
    with pytest.raises(Conflict, match="pause it first") as refused:
        may_go_on(job, is_changed=True)
    assert refused.value.code == "job_is_not_paused"


@pytest.mark.parametrize(("state", "asked"), [*product(JobState, StopReason)])
def test_every_change_is_one_that_the_table_of_states_allows(state: JobState, asked: StopReason) -> None:
    leaving = CANCEL if state is JobState.STOPPING else None
    try:
        change = asked_to_stop(Standing("j", state, leaving), asked)
    except Conflict:
        return
    assert change is None or change.to in JOB_TRANSITIONS[state]
