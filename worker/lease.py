"""An allocation's lease, held by a thread: renewed, told to the launcher, watched for what is asked."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from shared.db import leases
from shared.db.engine import make_engine, transaction
from shared.domain.events import HEARTBEAT_FILE, STOP_FILE, Heartbeat, StopRequest
from shared.domain.job import STOP_GRACE_S, StopReason
from shared.settings import Settings
from worker.interruption import AttemptEnding, LeaseLost, StopAsked
from worker.persist import PASSING
from worker.run_folder import write_whole

STATEMENT_TIMEOUT_S = 5.0
_RETRY_S = 1.0


class Lease:
    """Renews in a thread with connections of its own, from `with` to its end.

    Each confirmed renewal writes heartbeat.json into the run's folder; a reason to stop writes stop.json.
    """

    def __init__(self, claim: leases.Claim, settings: Settings, run: Path) -> None:
        self._claim = claim
        self._settings = settings
        self._run = run
        self._engine = make_engine(
            settings.database_url.get_secret_value(), statement_timeout_s=STATEMENT_TIMEOUT_S, pool_size=1
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._hold, name=f"lease-{claim.allocation_id}", daemon=True)
        self._confirmed = threading.Event()
        self._lost = False
        self._ending = False
        self._stop_reason: StopReason | None = None
        self._stop_seen = 0.0
        self._leaving_seen = math.inf
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()
        self._engine.dispose()

    def wait_until_confirmed(self, limit_s: float) -> bool:
        """Whether a renewal was confirmed, so that heartbeat.json is there; waits for it up to `limit_s`."""
        return self._confirmed.wait(limit_s)

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the job was asked to stop, None while it was not."""
        return self._stop_reason

    def patience_left_s(self) -> float:
        """How long to wait still for a store that is away: without end, unless the run must be gone by then.

        Nothing of a cancelled run is needed; and the host of one that drains may be taken away, also where
        the run leaves for another reason.
        """
        reason = self._stop_reason
        if reason is None:
            return math.inf
        gone_by = self._leaving_seen + self._grace_s(StopReason.DRAIN)
        if reason in (StopReason.CANCEL, StopReason.DRAIN):
            gone_by = min(gone_by, self._stop_seen + self._grace_s(reason))
        return gone_by - time.monotonic()

    def _grace_s(self, reason: StopReason) -> float:
        return self._settings.scaled(STOP_GRACE_S[reason])

    def check_held(self) -> None:
        """Raises LeaseLost when it is so, and what broke the renewals if anything did."""
        if self._failure is not None:
            raise self._failure
        if self._lost:
            raise LeaseLost("a renewal found that the lease is lost")

    def check(self) -> None:
        """The same, and raises AttemptEnding when another node of the attempt failed."""
        self.check_held()
        if self._ending:
            raise AttemptEnding("another node of this attempt failed")

    def check_stop(self) -> None:
        """The same, and raises StopAsked when the job was asked to stop."""
        self.check()
        if self._stop_reason is not None:
            raise StopAsked(self._stop_reason)

    def _hold(self) -> None:
        pause_s = 0.0
        while not self._lost and not self._closing.wait(pause_s):
            try:
                pause_s = self._settings.scaled(self._settings.renew_s if self._renew() else _RETRY_S)
            except Exception as error:
                # Raised again by `check` in the thread that runs the attempt: it ends it and says why.
                self._failure = error
                return

    def _renew(self) -> bool:
        """One renewal. False: the database did not answer, so it is not known whether the lease holds."""
        sent = time.clock_gettime(time.CLOCK_BOOTTIME)
        try:
            with transaction(self._engine) as session:
                renewal = leases.renew(
                    session,
                    token=self._claim.token,
                    allocation_id=self._claim.allocation_id,
                    lease_s=self._settings.scaled(self._settings.lease_s),
                )
        except PASSING as error:
            structlog.get_logger(__name__).warning(
                "renewal_unanswered",
                allocation=self._claim.allocation_id,
                error=str(error).partition("\n")[0],
            )
            return False
        if renewal is None:
            self._lost = True
            return True
        told = self._tell_the_launcher(sent)
        self._heed(renewal)
        return told

    def _tell_the_launcher(self, sent: float) -> bool:
        """Whether it could be told. On a full disk not: then it holds the ranks while the lease stands."""
        try:
            write_whole(self._run / HEARTBEAT_FILE, Heartbeat(boottime_s=sent).model_dump_json())
        except OSError as error:
            structlog.get_logger(__name__).warning("heartbeat_not_written", error=str(error))
            return False
        self._confirmed.set()
        return True

    def _heed(self, renewal: leases.Renewal) -> None:
        self._ending = renewal.ending
        if renewal.node_leaves:
            self._leaving_seen = min(self._leaving_seen, time.monotonic())
        reason = renewal.stop_reason
        if reason is None or reason is self._stop_reason:
            return
        request = StopRequest(reason=reason, grace_s=self._grace_s(reason))
        try:
            write_whole(self._run / STOP_FILE, request.model_dump_json())
        except OSError as error:  # a full disk: the next renewal tries again
            structlog.get_logger(__name__).warning("stop_not_written", error=str(error))
            return
        self._stop_seen = time.monotonic()
        self._stop_reason = reason
