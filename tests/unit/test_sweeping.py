"""What may go of the store: each reason, and each thing that keeps a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.artifacts.keys import artifact_key, checkpoint_prefix, file_key, place_of
from shared.domain.sweeping import (
    GOES,
    AttemptRow,
    CheckpointRow,
    JobRow,
    Rows,
    Stored,
    UploadRow,
    Verdict,
    judge,
)

GRACE_S = 100.0
OLD, YOUNG = 101.0, 99.0
PLACE = ("team-1", "ftjob-1", "attempt-1")
MODEL = artifact_key(*PLACE, "model.safetensors")
LOG = artifact_key(*PLACE, "logs.txt")
PREFIX = checkpoint_prefix(*PLACE, 12)
CHECKPOINT = f"{PREFIX}/state.pt"
UPLOAD = file_key("team-1", "file-1")

JOB = JobRow("team-1", is_needed=False, deleted_for_s=None)
DELETED = replace(JOB, deleted_for_s=OLD)
ENDED, LIVE = AttemptRow("ftjob-1", OLD), AttemptRow("ftjob-1", None)
KEPT = CheckpointRow("attempt-1", is_taken_up=False, dropped_for_s=None)
DROPPED = replace(KEPT, dropped_for_s=OLD)


def verdict(key: str, rows: Rows, *, age_s: float = OLD) -> Verdict:
    return judge(Stored(key, 1, age_s, place_of(key)), rows, grace_s=GRACE_S)


def rows(
    job: JobRow = JOB,
    attempt: AttemptRow = ENDED,
    checkpoint: CheckpointRow | None = None,
    *artifacts: str,
) -> Rows:
    return Rows(
        uploads={"file-1": UploadRow("team-1", UPLOAD, None)},
        jobs={"ftjob-1": job},
        attempts={"attempt-1": attempt},
        checkpoints={PREFIX: checkpoint} if checkpoint else {},
        artifacts=frozenset(artifacts),
    )


def test_what_a_result_or_a_checkpoint_refers_to_stays() -> None:
    assert verdict(MODEL, rows(JOB, ENDED, None, MODEL)) is Verdict.NEEDED
    assert verdict(CHECKPOINT, rows(checkpoint=KEPT)) is Verdict.NEEDED
    assert verdict(LOG, rows()) is Verdict.NEEDED
    assert verdict(UPLOAD, rows()) is Verdict.NEEDED


def test_what_an_ended_attempt_left_over_goes_once_it_is_old() -> None:
    for key in (MODEL, CHECKPOINT):
        assert verdict(key, rows()) is Verdict.LEFT_OVER
        assert verdict(key, rows(attempt=replace(ENDED, ended_for_s=YOUNG))) is Verdict.YOUNG
        assert verdict(key, rows(), age_s=YOUNG) is Verdict.YOUNG


@pytest.mark.parametrize("key", [MODEL, LOG, CHECKPOINT])
def test_nothing_of_a_live_attempt_goes_though_no_row_refers_to_it(key: str) -> None:
    assert verdict(key, rows(attempt=LIVE)) is Verdict.NEEDED
    assert verdict(key, rows(job=DELETED, attempt=LIVE)) is Verdict.NEEDED


def test_a_dropped_checkpoint_goes_even_while_its_attempt_is_live() -> None:
    for attempt in (LIVE, ENDED):
        assert verdict(CHECKPOINT, rows(attempt=attempt, checkpoint=DROPPED)) is Verdict.DROPPED_CHECKPOINT
        late = replace(DROPPED, dropped_for_s=YOUNG)
        assert verdict(CHECKPOINT, rows(attempt=attempt, checkpoint=late)) is Verdict.YOUNG
        taken_up = replace(DROPPED, is_taken_up=True)
        assert verdict(CHECKPOINT, rows(attempt=attempt, checkpoint=taken_up)) is Verdict.NEEDED


@pytest.mark.parametrize("key", [MODEL, LOG, CHECKPOINT])
def test_of_a_deleted_job_everything_goes(key: str) -> None:
    everything = rows(DELETED, ENDED, KEPT, MODEL)
    assert verdict(key, everything) is Verdict.DELETED_JOB
    assert verdict(key, replace(everything, jobs={"ftjob-1": replace(JOB, deleted_for_s=YOUNG)})) is (
        Verdict.YOUNG
    )
    needed = replace(DELETED, is_needed=True)
    assert verdict(key, replace(everything, jobs={"ftjob-1": needed})) is Verdict.NEEDED


def test_a_deleted_upload_goes() -> None:
    for deleted_for_s, expected in (
        (OLD, Verdict.DELETED_FILE),
        (YOUNG, Verdict.YOUNG),
        (None, Verdict.NEEDED),
    ):
        told = Rows(uploads={"file-1": UploadRow("team-1", UPLOAD, deleted_for_s)})
        assert verdict(UPLOAD, told) is expected


@pytest.mark.parametrize("key", [MODEL, LOG, CHECKPOINT, UPLOAD])
def test_of_a_team_that_is_gone_everything_goes_and_of_others_nothing(key: str) -> None:
    known = rows(JOB, ENDED, KEPT, MODEL)
    for told in (known, Rows()):
        assert verdict(key, replace(told, gone_teams={"team-1": OLD})) is Verdict.DELETED_TEAM
        assert verdict(key, replace(told, gone_teams={"team-1": YOUNG})) is Verdict.YOUNG
        assert verdict(key, replace(told, gone_teams={"team-1": OLD}), age_s=YOUNG) is Verdict.YOUNG
    others = dict.fromkeys(("team-", "team-10", "team", "team-1/", ""), OLD)
    assert verdict(key, replace(known, gone_teams=others)) is Verdict.NEEDED
    assert verdict(f"backup/{key}", replace(known, gone_teams={"team-1": OLD})) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    "key",
    [
        "readme.txt",
        "teams/team-1/notes",
        "teams/team-1/files/file-1/more",
        "teams/team-1/files/upload-1",
        "teams/team-1/jobs/ftjob-1/model.safetensors",
        "teams/team-1/jobs/ftjob-1/attempts/attempt-1/model.safetensors",
        "teams/team-1/jobs/ftjob-1/attempts/attempt-1/scratch/x",
        "teams/team-1/jobs/ftjob-1/attempts/attempt-1/checkpoints/step-12/state.pt",
        "teams/team-1/jobs/ftjob-1/attempts/attempt-1/checkpoints/step-000000012",
        "teams/team-1/jobs/ftjob-1/attempts/attempt-1/checkpoints/step-000000012/a/b",
        "teams/team-1/jobs/ftjob-2/attempts/attempt-1/artifacts/model.safetensors",
        "teams/team-1/jobs/ftjob-1/attempts/attempt-2/artifacts/model.safetensors",
        "teams/team-2/jobs/ftjob-1/attempts/attempt-1/artifacts/model.safetensors",
        "backup/teams/team-1/jobs/ftjob-1/attempts/attempt-1/artifacts/model.safetensors",
        "teams/team-2/files/file-1",
        "teams/team-1/files/file-2",
    ],
)
def test_what_no_row_explains_stays_for_ever(key: str) -> None:
    told = rows(DELETED, ENDED, DROPPED)
    told = replace(told, uploads={"file-1": UploadRow("team-1", UPLOAD, OLD)})
    assert verdict(key, told) is Verdict.UNKNOWN


@given(
    key=st.sampled_from([MODEL, LOG, CHECKPOINT, UPLOAD]),
    age_s=st.floats(0, GRACE_S, exclude_max=True),
    deleted_for_s=st.none() | st.floats(0, 1e9),
    ended_for_s=st.none() | st.floats(0, 1e9),
    dropped_for_s=st.none() | st.floats(0, 1e9),
)
def test_whatever_the_rows_say_nothing_young_goes(
    key: str,
    age_s: float,
    deleted_for_s: float | None,
    ended_for_s: float | None,
    dropped_for_s: float | None,
) -> None:
    told = Rows(
        uploads={"file-1": UploadRow("team-1", UPLOAD, deleted_for_s)},
        jobs={"ftjob-1": replace(JOB, deleted_for_s=deleted_for_s)},
        attempts={"attempt-1": AttemptRow("ftjob-1", ended_for_s)},
        checkpoints={PREFIX: replace(KEPT, dropped_for_s=dropped_for_s)},
    )
    assert verdict(key, told, age_s=age_s) not in GOES
