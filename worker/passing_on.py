"""From the trainer's progress to the database: lines in batches, checkpoints and shards to their upload."""

from __future__ import annotations

import time
from pathlib import Path

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from shared.db.engine import transaction
from shared.db.leases import Claim, write_progress
from shared.domain.events import CheckpointLine, ProgressLine, ShardLine
from worker.interruption import LeaseLost
from worker.lease import Lease
from worker.persist import PASSING, until_answered
from worker.progress_tail import ProgressTail
from worker.run_clock import read_ran_s
from worker.uploads import UploadsBeside

_WRITE_EVERY_S = 1.0
# Of a run that tells nothing it is still known how long it has run.
_TELL_TIME_EVERY_S = 10.0


class PassingOn:
    """Node rank 0's: it alone writes. `look` never waits long for the database, whatever its state."""

    def __init__(
        self,
        run: Path,
        uploads: UploadsBeside,
        engine: Engine,
        claim: Claim,
        lease: Lease,
        actor: str,
    ) -> None:
        self._run = run
        self._tail = ProgressTail(run)
        self._uploads = uploads
        self._engine = engine
        self._claim = claim
        self._lease = lease
        self._actor = actor
        self._unwritten: list[ProgressLine] = []
        self._due = self._time_due = 0.0

    def look(self) -> None:
        """Take up what is new, and write about once a second what is not written yet.

        Raises LeaseLost, and what has ended the uploads.
        """
        self._take_up()
        now = time.monotonic()
        if now < (self._due if self._unwritten else self._time_due):
            return
        self._due, self._time_due = now + _WRITE_EVERY_S, now + _TELL_TIME_EVERY_S
        try:
            with transaction(self._engine) as session:
                holds = self._write(session)
        except PASSING as error:
            structlog.get_logger(__name__).warning("progress_waits", error=str(error).partition("\n")[0])
        else:
            self._written(holds)

    def finish(self) -> None:
        """Take up and write all that is left, through an outage of the database. Raises LeaseLost."""
        self._take_up()
        self._written(until_answered(self._engine, self._write, self._lease.check_held))

    def _take_up(self) -> None:
        self._uploads.check()
        for line in self._tail.new_lines():
            if isinstance(line, CheckpointLine | ShardLine):
                self._uploads.add(line)
            else:
                self._unwritten.append(line)

    def _write(self, session: Session) -> bool:
        ran_s, token = read_ran_s(self._run), self._claim.token
        return write_progress(session, token=token, lines=self._unwritten, actor=self._actor, ran_s=ran_s)

    def _written(self, holds: bool) -> None:
        if not holds:
            raise LeaseLost("a report of progress found that the lease is lost")
        self._unwritten = []
