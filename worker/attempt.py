"""An attempt's work on this node under a lease that is held: wait, fetch, launch, pass on, upload."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from shared.artifacts import StoreOptions, StoreUnavailable, open_store
from shared.db import leases
from shared.db.leases import Claim, StoredArtifact
from shared.db.peers import Peer, peers_before
from shared.db.work import Work, load_work
from shared.domain.archive import Caps
from shared.domain.errors import NotFound, ThawError
from shared.domain.events import (
    LOG_FILE,
    RESULT_FILE,
    SPEC_FILE,
    ErrorReport,
    OutcomeReport,
)
from shared.domain.extraction import AnyRunSpec, ExtractorSpec
from shared.domain.failures import PEER_LOST, code_of
from shared.domain.job import Outcome, StopReason
from shared.settings import Settings
from worker.cache import Cache
from worker.devices import Devices
from worker.inputs import Inputs
from worker.interruption import AttemptEnding, LeaseLost, StopAsked
from worker.launch import LAUNCH_FILE
from worker.launch_plan import launch_plan
from worker.lease import Lease
from worker.outcome import FENCED, ended_by, lost, settle
from worker.passing_on import PassingOn
from worker.patience import PATIENCE_S, patiently
from worker.persist import until_answered
from worker.records import Records
from worker.result_files import RESULT_FILES, check_as_listed, listed_activations
from worker.resume import Resuming, WritesNothing
from worker.run_files import read_plain
from worker.run_folder import write_whole
from worker.trainer import launched
from worker.uploads import UploadsBeside, upload_results

_LOOK_AGAIN_S = 0.2
_GANG_LOOK_S = 1.0
T = TypeVar("T")


@dataclass(frozen=True)
class End:
    """How the allocation ends, and what goes with it."""

    report: OutcomeReport
    result: dict[str, Any] | None = None
    artifacts: list[StoredArtifact] = field(default_factory=list)


class Attempt:
    """One allocation's share. `folder` is the run's; only node rank 0 writes to database and store."""

    def __init__(
        self, claim: Claim, settings: Settings, devices: Devices, engine: Engine, folder: Path, lease: Lease
    ) -> None:
        self._claim = claim
        self._settings = settings
        self._devices = devices
        self._engine = engine
        self._folder = folder
        self._lease = lease
        self._writes = claim.node_rank == 0
        self._records = Records(engine, claim, lease, settings.node_name)
        self._store = open_store(settings.store_url, StoreOptions.from_settings(settings))

    def live(self) -> End:
        """Do the work. Raises LeaseLost, and what is wrong with this program or its host."""
        try:
            self._wait_for_the_gang()
            with self._open_cache() as cache:
                spec = self._fetch_inputs(cache)
                return self._train(spec)
        except StopAsked as asked:
            return End(OutcomeReport(outcome=Outcome.STOPPED, reason=asked.reason))
        except AttemptEnding as ending:
            return End(lost(str(ending), code=PEER_LOST))
        except ThawError as error:
            return End(ended_by(code_of(error), error.message))

    def _wait_for_the_gang(self) -> None:
        """No node launches before every node of the attempt has claimed."""
        while not self._lease.wait_until_confirmed(_LOOK_AGAIN_S):
            self._lease.check_stop()
        running: bool | None = self._claim.attempt_running
        while not running:
            self._lease.check_stop()
            time.sleep(self._settings.scaled(_GANG_LOOK_S))
            running = self._ask(lambda session: leases.attempt_is_running(session, self._claim.token))
            if running is None:
                raise LeaseLost("the attempt is over")

    def _open_cache(self) -> Cache:
        settings = self._settings
        return Cache(
            settings.work_dir / "cache", settings.cache_bytes, self._lease.check_stop, settings.trainer_uid
        )

    def _fetch_inputs(self, cache: Cache) -> AnyRunSpec:
        settings = self._settings
        inputs = Inputs(
            work=self._load_work(),
            store=self._store,
            cache=cache,
            caps=Caps(
                settings.max_archive_files, settings.max_unpacked_bytes, settings.max_compression_ratio
            ),
            weights_dir=settings.weights_dir,
            interrupted=self._lease.check_stop,
            max_extraction_bytes=settings.max_extraction_bytes,
        )
        resuming: Resuming = self._records if self._writes else WritesNothing()
        device: Any = "cpu" if self._devices.accelerator == "cpu" else "cuda"
        return patiently(
            lambda: inputs.fetch(self._folder, device, resuming),
            self._lease.check_stop,
            tell=self._tell_of_waiting,
        )

    def _tell_of_waiting(self, why: str) -> None:
        if self._writes:
            again = f"this is tried again for {PATIENCE_S / 60:g} minutes"
            self._records.note("waits_for_inputs", f"{why}; {again}", {"patience_s": PATIENCE_S})

    def _load_work(self) -> Work:
        try:
            return self._ask(lambda session: load_work(session, self._claim.token))
        except NotFound as gone:
            if gone.code == "token_lost":
                raise LeaseLost(gone.message) from gone
            raise

    def _train(self, spec: AnyRunSpec) -> End:
        plan = launch_plan(self._claim, self._settings, self._devices, spec, self._peers())
        write_whole(self._folder / SPEC_FILE, spec.model_dump_json(indent=1))
        write_whole(self._folder / LAUNCH_FILE, plan.model_dump_json(indent=1))
        if not self._writes:
            return End(self._run_trainer(look=lambda: None))
        with UploadsBeside(
            self._store,
            self._claim,
            self._folder,
            self._records,
            self._lease.check_held,
            self._lease.patience_left_s,
        ) as uploads:
            passing_on = PassingOn(
                self._folder, uploads, self._engine, self._claim, self._lease, self._settings.node_name
            )
            report = self._run_trainer(look=passing_on.look)
            passing_on.finish()
            return self._bring_in(report, spec, uploads)

    def _peers(self) -> list[Peer]:
        claim = self._claim
        if claim.node_rank == 0:
            return []
        return self._ask(lambda session: peers_before(session, claim.attempt_id, claim.node_rank))

    def _run_trainer(self, look: Callable[[], None]) -> OutcomeReport:
        """From the launch until no process is left. `look` is called a few times a second."""
        with launched(self._folder) as launcher:
            instead = self._watch(launcher, look)
        told = settle(self._folder, lost(f"the launcher ended with {launcher.returncode}", run=self._folder))
        was_fenced = told.error is not None and told.error.code == FENCED
        return instead if instead is not None and was_fenced else told

    def _watch(self, launcher: subprocess.Popen[bytes], look: Callable[[], None]) -> OutcomeReport | None:
        """Until the launcher has ended: None. Or until it must: how the run ends then."""
        while True:
            with suppress(subprocess.TimeoutExpired):
                launcher.wait(_LOOK_AGAIN_S)
                return None
            try:
                self._lease.check()
            except AttemptEnding as ending:
                return lost(str(ending), code=PEER_LOST)
            look()

    def _bring_in(self, report: OutcomeReport, spec: AnyRunSpec, uploads: UploadsBeside) -> End:
        """Everything that the run made, in the store."""
        try:
            uploads.finish(keep_newest=self._goes_on_later(report))
            if report.outcome is Outcome.SUCCEEDED:
                return self._bring_in_result(report, spec, uploads)
            logged = os.path.lexists(self._folder / LOG_FILE)
            return End(report, artifacts=self._upload(LOG_FILE) if logged else [])
        except StoreUnavailable as away:
            if report.outcome is Outcome.SUCCEEDED:
                if self._lease.stop_reason is None:
                    raise
                # It had to be gone before the store took its result, which it makes again: no try is lost.
                report = OutcomeReport(outcome=Outcome.STOPPED, reason=self._lease.stop_reason)
            # How the run ended is known, and counts for more than its log.
            structlog.get_logger(__name__).warning("log_not_stored", error=away.message)
            return End(report if uploads.has_stored_newest else _without_checkpoint(report, away))

    def _goes_on_later(self, report: OutcomeReport) -> bool:
        """Whether the run has left its slots for now, so that its last checkpoint must not be lost."""
        return report.outcome is Outcome.STOPPED and self._lease.stop_reason is not StopReason.CANCEL

    def _bring_in_result(self, report: OutcomeReport, spec: AnyRunSpec, uploads: UploadsBeside) -> End:
        result = self._result()
        earlier = {file.name for file in spec.finished} if isinstance(spec, ExtractorSpec) else set()
        listed = [
            file
            for file in listed_activations(result, self._settings.max_extraction_bytes)
            if file.name not in earlier
        ]
        rest = [file.name for file in listed if file.name not in uploads.shards]
        stored = self._upload(*RESULT_FILES[spec.kind], *rest, LOG_FILE)
        check_as_listed(listed, [*stored, *uploads.shards.values()])
        return End(report, result, stored)

    def _result(self) -> dict[str, Any]:
        # JSON has no NaN, and Postgres takes none.
        text = read_plain(self._folder, RESULT_FILE)
        result: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)
        return result

    def _upload(self, *names: str) -> list[StoredArtifact]:
        lease = self._lease
        return upload_results(
            self._store, self._claim, self._folder, names, lease.check_held, lease.patience_left_s
        )

    def _ask(self, step: Callable[[Session], T]) -> T:
        return until_answered(self._engine, step, self._lease.check_stop)


def _without_checkpoint(report: OutcomeReport, away: StoreUnavailable) -> OutcomeReport:
    """A run that had to be gone before the store took its last checkpoint."""
    if report.outcome is not Outcome.STOPPED or report.reason is StopReason.CANCEL:
        return report
    message = f"its last checkpoint could not be stored, so it goes on from an earlier one: {away.message}"
    error = ErrorReport(code="checkpoint_not_stored", message=message, time=time.time())
    return report.model_copy(update={"error": error})
