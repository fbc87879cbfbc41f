"""A store full of whatever jobs, uploads and strangers leave, and what of it must stay and must go."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from hypothesis import strategies as st
from sqlalchemy import Engine

from shared.artifacts import ArtifactStore, open_store
from shared.artifacts.keys import artifact_key, checkpoint_prefix, file_key
from shared.db.engine import transaction
from shared.db.models import Artifact, Attempt, Checkpoint, File, Job
from shared.domain.job import FINAL_JOB_STATES, LIVE_ATTEMPT_STATES, AttemptState, JobState, StopReason
from shared.ids import new_id

GRACE_S = 3600.0
YOUNG_S, OLD_S = 60.0, 2 * 3600.0
TEAM = "team-1"

ages = st.sampled_from([YOUNG_S, OLD_S])
over_for = st.none() | ages

artifacts = st.fixed_dictionaries({"referenced": st.booleans(), "age_s": ages})
checkpoints = st.fixed_dictionaries(
    {"row": st.sampled_from(["none", "kept", "young drop", "old drop"]), "age_s": ages}
)
attempts = st.fixed_dictionaries(
    {
        "ended_for_s": ages,
        "log_age_s": over_for,
        "artifacts": st.lists(artifacts, max_size=2),
        "checkpoints": st.lists(checkpoints, max_size=3),
    }
)
jobs = st.fixed_dictionaries(
    {
        "state": st.sampled_from(JobState),
        "deleted_for_s": over_for,
        "goes_on_from_an_earlier": st.booleans(),
        "attempts": st.lists(attempts, max_size=3),
        "live": st.none() | st.sampled_from(sorted(LIVE_ATTEMPT_STATES)),
        "live_takes_up": st.booleans(),
    }
)
uploads = st.fixed_dictionaries({"deleted_for_s": over_for, "age_s": ages})
strangers = st.lists(
    st.sampled_from(
        [
            "readme.txt",
            "teams/team-1/files/upload-1",
            f"teams/{TEAM}/files/{new_id('file')}",
            f"teams/{TEAM}/jobs/{new_id('ftjob')}/attempts/{new_id('attempt')}/artifacts/model.safetensors",
            f"teams/{TEAM}/notes/{new_id('ftjob')}",
        ]
    ),
    unique=True,
)
worlds = st.fixed_dictionaries(
    {"jobs": st.lists(jobs, max_size=4), "uploads": st.lists(uploads, max_size=3), "strangers": strangers}
)


@dataclass
class SweptStore:
    """Rows in the database, files in a folder, and of each file whether it must be there afterwards."""

    engine: Engine
    root: Path
    stays: set[str] = field(default_factory=set)
    goes: set[str] = field(default_factory=set)

    @property
    def store(self) -> ArtifactStore:
        return open_store(self.root.as_uri())

    def keys(self) -> set[str]:
        return {entry.key for entry in self.store.list()}

    def build(self, drawn: dict[str, Any]) -> None:
        made: list[str] = []
        with transaction(self.engine) as session:
            for upload in drawn["uploads"]:
                self._upload(session, upload)
            needed = self._needed(drawn["jobs"])
            for number, job in enumerate(drawn["jobs"]):
                base = made[-1] if made and job["goes_on_from_an_earlier"] else None
                made.append(self._job(session, job, base, is_needed=needed[number]))
        for key in drawn["strangers"]:
            self._put(key, OLD_S, goes=False)

    @staticmethod
    def _needed(drawn: list[dict[str, Any]]) -> list[bool]:
        """Whether each is not over, has a live attempt, or is the base of the next, which is not over."""
        unfinished = [job["state"] not in FINAL_JOB_STATES for job in drawn]
        used = [
            job["goes_on_from_an_earlier"] and is_unfinished
            for job, is_unfinished in zip(drawn, unfinished, strict=True)
        ]
        is_used = [*used[1:], False]
        return [unfinished[n] or is_used[n] or job["live"] is not None for n, job in enumerate(drawn)]

    def _upload(self, session: Any, drawn: dict[str, Any]) -> None:
        id = new_id("file")
        key = file_key(TEAM, id)
        columns = {
            "filename": "d.zip",
            "purpose": "fine-tune",
            "bytes": 1,
            "sha256": "0",
            "format": "weights",
        }
        session.add(
            File(
                id=id,
                team_id=TEAM,
                storage_key=key,
                details={},
                deleted_at=_before(drawn["deleted_for_s"]),
                **columns,
            )
        )
        self._put(key, drawn["age_s"], goes=_all_old(drawn["deleted_for_s"], drawn["age_s"]))

    def _job(self, session: Any, drawn: dict[str, Any], base: str | None, *, is_needed: bool) -> str:
        state = drawn["state"]
        job = Job(
            id=new_id("ftjob"),
            team_id=TEAM,
            created_by="key-1",
            state=state,
            stop_reason=StopReason.PAUSE if state is JobState.STOPPING else None,
            model="resnet18",
            base_job_id=base,
            training_file_id="file-1",
            spec={},
            resolved={},
            freeze_plan={},
            devices_per_node=1,
            nodes=1,
            accelerator="any",
            max_attempts=3,
            finished_at=_before(OLD_S) if state in FINAL_JOB_STATES else None,
            deleted_at=_before(drawn["deleted_for_s"]),
        )
        session.add(job)
        session.flush()
        deleted_for_s = None if is_needed else drawn["deleted_for_s"]
        number, last_dropped = 0, None
        for number, attempt in enumerate(drawn["attempts"], 1):
            last_dropped = self._attempt(session, job.id, number, attempt, deleted_for_s) or last_dropped
        if drawn["live"] is not None:
            self._live(session, job.id, number + 1, drawn, last_dropped)
        return job.id

    def _attempt(
        self, session: Any, job_id: str, number: int, drawn: dict[str, Any], deleted_for_s: float | None
    ) -> str | None:
        """An attempt that is over, and its files; the id of its last dropped checkpoint."""
        attempt_id = _add_attempt(session, job_id, number, AttemptState.ENDED, drawn["ended_for_s"])
        ended_for_s, dropped = drawn["ended_for_s"], None
        if drawn["log_age_s"] is not None:
            gone = _all_old(deleted_for_s, ended_for_s, drawn["log_age_s"])
            self._put(artifact_key(TEAM, job_id, attempt_id, "logs.txt"), drawn["log_age_s"], goes=gone)
        for n, artifact in enumerate(drawn["artifacts"]):
            key = artifact_key(TEAM, job_id, attempt_id, f"activations/{number}-{n}")
            if artifact["referenced"]:
                _add_artifact(session, job_id, attempt_id, key)
            left_over = not artifact["referenced"] and _all_old(ended_for_s, artifact["age_s"])
            gone = _all_old(deleted_for_s, ended_for_s, artifact["age_s"])
            self._put(key, artifact["age_s"], goes=left_over or gone)
        for step, checkpoint in enumerate(drawn["checkpoints"]):
            prefix = checkpoint_prefix(TEAM, job_id, attempt_id, step)
            id = _add_checkpoint(session, job_id, attempt_id, step, prefix, checkpoint["row"])
            age_s = checkpoint["age_s"]
            superfluous = {
                "none": _all_old(ended_for_s, age_s),
                "kept": False,
                "young drop": False,
                "old drop": _all_old(age_s),
            }[checkpoint["row"]]
            goes = superfluous or _all_old(deleted_for_s, ended_for_s, age_s)
            for name in ("manifest.json", "state.pt"):
                self._put(f"{prefix}/{name}", age_s, goes=goes)
            dropped = id if checkpoint["row"] == "old drop" else dropped
        return dropped

    def _live(
        self, session: Any, job_id: str, number: int, drawn: dict[str, Any], dropped: str | None
    ) -> None:
        """An attempt that goes on, maybe from a checkpoint that was dropped since: it may yet read that."""
        taken_up = dropped if drawn["live_takes_up"] else None
        attempt_id = _add_attempt(session, job_id, number, AttemptState(drawn["live"]), None, taken_up)
        if taken_up is not None:
            prefix = session.get_one(Checkpoint, taken_up).storage_prefix
            for key in [key for key in self.goes if key.startswith(f"{prefix}/")]:
                self.goes.discard(key)
                self.stays.add(key)
        for name in ("logs.txt", "model.safetensors"):
            self._put(artifact_key(TEAM, job_id, attempt_id, name), OLD_S, goes=False)
        self._put(f"{checkpoint_prefix(TEAM, job_id, attempt_id, 7)}/state.pt", OLD_S, goes=False)

    def _put(self, key: str, age_s: float, *, goes: bool) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        os.utime(path, (time.time() - age_s,) * 2)
        (self.goes if goes else self.stays).add(key)


def _all_old(*ages_s: float | None) -> bool:
    return all(age_s is not None and age_s >= GRACE_S for age_s in ages_s)


def _before(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.now(UTC) - timedelta(seconds=seconds)


def _add_attempt(
    session: Any,
    job_id: str,
    number: int,
    state: AttemptState,
    ended_for_s: float | None,
    resume_from: str | None = None,
) -> str:
    attempt = Attempt(
        id=new_id("attempt"),
        job_id=job_id,
        number=number,
        state=state,
        nodes=1,
        lease_token=uuid4(),
        master_addr="127.0.0.1",
        master_port=1,
        resume_from=resume_from,
        ended_at=_before(ended_for_s),
    )
    session.add(attempt)
    session.flush()
    return attempt.id


def _add_artifact(session: Any, job_id: str, attempt_id: str, key: str) -> None:
    name = key.rpartition("/")[2]
    session.add(
        Artifact(job_id=job_id, name=name, attempt_id=attempt_id, storage_key=key, bytes=1, sha256="0")
    )


def _add_checkpoint(
    session: Any, job_id: str, attempt_id: str, step: int, prefix: str, kind: str
) -> str | None:
    if kind == "none":
        return None
    dropped_for_s = {"kept": None, "young drop": YOUNG_S, "old drop": OLD_S}[kind]
    row = Checkpoint(
        id=new_id("ftckpt"),
        job_id=job_id,
        attempt_id=attempt_id,
        epoch=1,
        step=step,
        is_best=False,
        storage_prefix=prefix,
        manifest={},
        dropped_at=_before(dropped_for_s),
    )
    session.add(row)
    session.flush()
    return row.id
