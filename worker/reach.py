"""Whether this node reaches the others of its gang: a plain connection to each is tried every few seconds.

Where packets are dropped no connection closes: ranks wait for one another until the kernel gives theirs up, a
quarter of an hour later. By what a rank does nobody can tell that from a peer that computes for long, or is
held; whether its host answers does not depend on it. The kernel answers for a process that is stopped, too.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from shared.domain.events import OutcomeReport
from shared.domain.failures import NODE_UNREACHABLE
from worker.launch import PeerAddress
from worker.outcome import ended_by

# In the time after which a node counts as cut off, so that what is lost now and then ends no run.
_TRIES = 10
# A refusal comes from the other host as well: its agent does not listen yet, or no more.
_ANSWERS = frozenset({0, errno.ECONNREFUSED, errno.ECONNRESET})


@dataclass
class ReachRule:
    """A node is cut off when nothing that it was asked for `unreachable_s` of running had an answer.

    That counts from the first question after the last answer: where the database went in the same moment, the
    run is held before.
    """

    unreachable_s: float
    _asked_s: float | None = field(default=None, init=False)

    def ask(self, ran_s: float) -> None:
        """It is asked, after `ran_s` of running."""
        if self._asked_s is None:
            self._asked_s = ran_s

    def hear(self) -> None:
        """It has answered; or nothing counts just now, and the count begins anew."""
        self._asked_s = None

    def is_cut_off(self, ran_s: float) -> bool:
        """Whether it is so after `ran_s` of running."""
        return self._asked_s is not None and ran_s - self._asked_s > self.unreachable_s


class Reach:
    """The nodes of lower rank, so that each pair is looked at once: a cut lets neither connect."""

    def __init__(self, peers: Sequence[PeerAddress], unreachable_s: float) -> None:
        self._lines = [_Line(peer, ReachRule(unreachable_s)) for peer in peers]
        self._every_s = unreachable_s / _TRIES
        self._due_s = 0.0

    def unreached(self, ran_s: float, *, held: bool) -> str | None:
        """What to say of a node that is cut off after `ran_s` of running. Never waits.

        What holds a run has often come between the nodes too, and may be over there a moment later: while it
        is held nothing counts, nor what was before.
        """
        is_due = ran_s >= self._due_s
        if is_due:
            self._due_s = ran_s + self._every_s
        for line in self._lines:
            line.listen()
            if held:
                line.rule.hear()
            elif is_due:
                line.ask(ran_s)
        return next((line.in_words() for line in self._lines if line.rule.is_cut_off(ran_s)), None)


def cut_off(node: str, unreached: str, unreachable_s: float) -> OutcomeReport:
    """How the run ends on `node`. It is the network's fault, so it is tried again."""
    message = f"the node {node} could not reach {unreached} for {unreachable_s:g} s"
    return ended_by(NODE_UNREACHABLE, message)


class _Line:
    """To one node: the connections that are being tried, by the address that each goes to."""

    def __init__(self, peer: PeerAddress, rule: ReachRule) -> None:
        self.rule = rule
        self._peer = peer
        self._tried: dict[str, socket.socket] = {}
        self._errors: dict[str, int] = {}

    def ask(self, ran_s: float) -> None:
        """Try anew, and give up what had no answer until now."""
        for connection in self._tried.values():
            connection.close()
        self._tried.clear()
        self.rule.ask(ran_s)
        for address in self._peer.addresses:
            self._connect(address)

    def listen(self) -> None:
        """Take what has come meanwhile."""
        for address, connection in list(self._tried.items()):
            if _is_decided(connection):
                del self._tried[address]
                self._heard(address, connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
                connection.close()

    def in_words(self) -> str:
        """The node, and what came of each of its addresses."""
        peer = self._peer
        where = (f"{address} port {peer.port}: {self._why(address)}" for address in peer.addresses)
        return f"the node {peer.node} of the same run ({'; '.join(where)})"

    def _connect(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:  # as for IPv6 on a host that has none
            self._heard(address, error.errno or errno.EIO)
            return
        code = connection.connect_ex((address, self._peer.port))
        if code == errno.EINPROGRESS:
            self._tried[address] = connection
        else:
            self._heard(address, code)
            connection.close()

    def _heard(self, address: str, code: int) -> None:
        self._errors[address] = code
        if code in _ANSWERS:
            self.rule.hear()

    def _why(self, address: str) -> str:
        code = self._errors.get(address, 0)
        return "no answer" if code in _ANSWERS else os.strerror(code).lower()


def _is_decided(connection: socket.socket) -> bool:
    """Whether the connection stands, or failed."""
    poll = select.poll()
    poll.register(connection, select.POLLOUT)
    return bool(poll.poll(0))
