"""Owns a trainer's processes: starts, holds, wakes and stops them, leaves none behind. Imports no torch.

    python -m worker.launcher RUN_FOLDER --parent PID

A process of its own, so that nothing that the supervisor does or suffers keeps it from watching the
heartbeat. It reads launch.json, heartbeat.json and stop.json, and sees to it that outcome.json stands there
at the end.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from shared.domain.events import (
    HEARTBEAT_FILE,
    LOG_FILE,
    STOP_FILE,
    ErrorReport,
    Heartbeat,
    OutcomeReport,
    StopRequest,
)
from shared.domain.failures import PEER_LOST, PORT_TAKEN
from shared.domain.job import Outcome
from worker.capped_log import CappedLog
from worker.deaths import PROCESS_KILLED, for_memory, reports_of_deaths
from worker.hold import HoldRule, Order
from worker.launch import LAUNCH_FILE, TRAINER_MODULE, LaunchPlan, agent_command, agent_environment
from worker.memory_kills import memory_kills
from worker.outcome import FENCED, TRAINER_ENDED, ended_by, lost, overstayed, settle
from worker.processes import become_subreaper, bind_to_parent, kill_all, stop_all, wake_all
from worker.reach import Reach, cut_off
from worker.rendezvous import is_taken
from worker.run_clock import RanClock, StallRule
from worker.run_files import read_plain
from worker.slots import hold_shared
from worker.stacks import signs_of_life, where_ranks_stand
from worker.stalled import no_progress

_TICK_S = 0.1
_READ_BYTES = 65_536
_READS_A_TICK = 64
_KILL_WAIT_S = 60.0
_PORT_WAIT_S = 3.0


def main() -> None:
    """Launch, watch, tidy up. Exit code 0 once no process is left and the outcome is written."""
    arguments = _parse(sys.argv[1:])
    bind_to_parent(arguments.parent, signal.SIGTERM)
    become_subreaper()
    run: Path = arguments.run
    plan = LaunchPlan.model_validate_json((run / LAUNCH_FILE).read_bytes())
    with CappedLog(run / LOG_FILE, plan.log_bytes) as log:
        launcher = Launcher(run, plan, log, parent=arguments.parent)
        signal.signal(signal.SIGTERM, launcher.on_terminate)
        clean = launcher.run(arguments.module)
    sys.exit(0 if clean else "some trainer process could not be killed")


@dataclass(frozen=True, slots=True)
class _Stop:
    """A request to stop, and when its grace is over (monotonic seconds)."""

    request: StopRequest
    deadline: float


class Launcher:
    """One run's processes, from the first to the last."""

    def __init__(self, run: Path, plan: LaunchPlan, log: CappedLog, *, parent: int) -> None:
        self._run = run
        self._plan = plan
        self._log = log
        self._parent = parent
        self._rule = HoldRule(plan.hold_after_s, plan.kill_after_held_s)
        self._held = False
        self._clock = RanClock(time.monotonic())
        self._stall = StallRule(plan.stall_s, plan.start_s)
        self._reach = Reach(plan.peers, plan.unreachable_s)
        self._memory_kills = memory_kills()
        self._stop: _Stop | None = None
        self._terminated = False

    def on_terminate(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM: the supervisor fences the run, or has died."""
        self._terminated = True

    def run(self, module: str) -> bool:
        """Start the trainer and stay until it is over. False: some process could not be killed."""
        locks = [hold_shared(Path(path)) for path in self._plan.slot_locks]
        try:
            port = self._plan.master_port
            if self._plan.node_rank == 0 and is_taken(port, _PORT_WAIT_S):
                message = f"another program holds the port {port} of this node, on which the ranks would meet"
                self._settle(ended_by(PORT_TAKEN, message))
                return True
            return self._run_trainer(module)
        finally:
            for descriptor in locks:
                os.close(descriptor)

    def _run_trainer(self, module: str) -> bool:
        try:
            agent = self._start(module)
            fallback = self._watch(agent)
        finally:
            # Whatever went wrong above: nothing may be left.
            clean = kill_all(os.getpid(), limit_s=_KILL_WAIT_S)
        self._copy_output(agent, wait_s=0)
        self._settle(fallback)
        return clean

    def _settle(self, fallback: OutcomeReport) -> None:
        settle(self._run, fallback, reports_of_deaths(self._run, self._plan.batch), self._amended)

    def _amended(self, error: ErrorReport) -> ErrorReport:
        ran_out = memory_kills() != self._memory_kills
        return for_memory(error, self._plan.batch) if ran_out else error

    def _start(self, module: str) -> subprocess.Popen[bytes]:
        launcher = os.getpid()
        agent = subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
            agent_command(self._plan, self._run, module, launcher),
            env=agent_environment(self._plan, os.environ, launcher),
            cwd=self._run,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert agent.stdout is not None
        os.set_blocking(agent.stdout.fileno(), False)
        return agent

    def _watch(self, agent: subprocess.Popen[bytes]) -> OutcomeReport:
        """Until the trainer has ended or must: how it ended, should no rank have said so."""
        while True:
            self._copy_output(agent, wait_s=_TICK_S)
            status = agent.poll()
            if status is not None:
                return self._ended(status)
            if self._terminated or os.getppid() != self._parent:
                return lost("the run was fenced: its supervisor ended it, or has ended", code=FENCED)
            if self._obey_heartbeat() is Order.DIE:
                held_s = self._plan.kill_after_held_s
                return lost(f"held for {held_s:g} s, and the lease was not confirmed", code="lease_lost")
            over = self._is_out_of_time() or self._is_cut_off()
            if over is not None:
                return over
            late = self._grace_is_over()
            if self._stop is not None and (late or self._waits_for_its_gang()):
                asked = self._stop.request
                return overstayed(asked) if late else _stopped_before_it_began(asked)

    def _waits_for_its_gang(self) -> bool:
        """Whether other nodes are not there yet: nobody has computed, and there is no rank to heed a stop."""
        return self._plan.nodes > 1 and not signs_of_life(self._run)

    def _ended(self, status: int) -> OutcomeReport:
        if status == 0 and self._plan.node_rank > 0:
            return OutcomeReport(outcome=Outcome.SUCCEEDED)  # the result is node rank 0's
        if status > 0 and self._waits_for_its_gang():
            return lost("the nodes of this run did not find one another", code=PEER_LOST, run=self._run)
        how = f"was killed by signal {-status}" if status < 0 else f"ended with exit code {status}"
        code = PROCESS_KILLED if status < 0 else TRAINER_ENDED
        return lost(f"the trainer {how} and left no word why", code=code, run=self._run)

    def _is_out_of_time(self) -> OutcomeReport | None:
        """How the run ends where it has run for too long, or got no further for too long."""
        clock, plan = self._clock, self._plan
        clock.tick(time.monotonic(), held=self._held)
        if not clock.tell(self._run):
            return None
        limit_s = plan.max_duration_s
        if limit_s is not None and plan.spent_s + clock.ran_s > limit_s + plan.overtime_s:
            return ended_by("time_limit", f"the job was not done after max_duration_s, {limit_s:g} s")
        if not self._stall.is_stalled(clock.ran_s, signs_of_life(self._run)):
            return None
        assert plan.stall_s is not None
        report = no_progress(plan.stall_s, where_ranks_stand(self._run, os.getpid()))
        assert report.error is not None
        self._log.say(f"{report.error.message}\n{report.error.traceback or ''}")
        return report

    def _is_cut_off(self) -> OutcomeReport | None:
        """How the run ends where another node of it cannot be reached, and it has stood still for as long."""
        ran_s, limit_s = self._clock.ran_s, self._plan.unreachable_s
        unreached = self._reach.unreached(ran_s, held=self._held)
        if unreached is None or self._stall.still_s(ran_s, signs_of_life(self._run)) <= limit_s:
            return None
        report = cut_off(self._plan.node_name, unreached, limit_s)
        self._log.say(report.error.message if report.error else unreached)
        return report

    def _copy_output(self, agent: subprocess.Popen[bytes], *, wait_s: float) -> None:
        """What the ranks have printed goes to logs.txt; waits up to `wait_s` for some."""
        assert agent.stdout is not None
        deadline = time.monotonic() + wait_s
        # Not without end: ranks that print faster than this reads must not keep it from its other duties.
        for _ in range(_READS_A_TICK):
            if not select.select([agent.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return
            data = os.read(agent.stdout.fileno(), _READ_BYTES)
            if not data:  # every writer is gone
                time.sleep(max(0.0, deadline - time.monotonic()))
                return
            self._log.append(data)

    def _obey_heartbeat(self) -> Order:
        sent = Heartbeat.model_validate_json(read_plain(self._run, HEARTBEAT_FILE)).boottime_s
        order = self._rule.decide(time.clock_gettime(time.CLOCK_BOOTTIME), sent)
        if order is Order.HOLD:
            if not self._held:
                self._log.say("held: the lease is not confirmed, as when the database cannot be reached")
            # Each time: whoever else wakes one of them knows nothing of the lease.
            stop_all(os.getpid())
        if order is Order.RUN and self._held:
            self._log.say("woken: the lease is confirmed again")
            wake_all(os.getpid())
        self._held = order is not Order.RUN
        return order

    def _grace_is_over(self) -> bool:
        now = time.monotonic()
        asked = self._stop_request()
        if asked is not None and (self._stop is None or asked != self._stop.request):
            self._log.say(f"asked to stop ({asked.reason}), {asked.grace_s:g} s to leave")
            self._stop = _Stop(asked, now + asked.grace_s)
        return self._stop is not None and now > self._stop.deadline

    def _stop_request(self) -> StopRequest | None:
        try:
            return StopRequest.model_validate_json(read_plain(self._run, STOP_FILE))
        except FileNotFoundError:
            return None


def _stopped_before_it_began(asked: StopRequest) -> OutcomeReport:
    return OutcomeReport(outcome=Outcome.STOPPED, reason=asked.reason)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.launcher", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--parent", type=int, required=True, help="process id of the supervisor")
    parser.add_argument("--module", default=TRAINER_MODULE, help="what each rank runs")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
