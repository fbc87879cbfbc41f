"""Which user Postgres runs as, since it refuses root and users without a name."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NOBODY = 65534
_BOUND = Path(__file__).with_name("bound.py")


@dataclass(frozen=True)
class Identity:
    """A way to run a command: behind a prefix, and as another user id where one is named."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None

    def command(self, argv: Sequence[str], death_signal: int = signal.SIGKILL) -> list[str]:
        """`argv` as this user, bound to the life of this process: it gets `death_signal` when we end.

        Must be started from the main thread: the kernel watches the thread that starts the child.
        """
        uid = "-" if self.uid is None else str(self.uid)
        bound = [sys.executable, "-I", "-S", str(_BOUND), str(os.getpid()), str(int(death_signal)), uid]
        program = shutil.which(argv[0]) or argv[0]
        return [*self.prefix, *bound, program, *argv[1:]]


OURSELVES = Identity()
_UNSHARE = ("unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")
IN_NAMESPACE = Identity(prefix=_UNSHARE)
AS_NOBODY = Identity(uid=NOBODY)


def unprivileged(folder: Path, program: Path) -> Identity:
    """A user that Postgres agrees to run as, who can write `folder` (and owns it afterwards).

    Postgres refuses root and users without a name. For those it is a user namespace in which our files
    belong to nobody, or, for root where namespaces are blocked, the user nobody itself. No folder above
    is opened to it.
    """
    root = os.geteuid() == 0
    if not root and _has_a_name(os.geteuid()):
        return OURSELVES
    complaints = []
    for identity in (IN_NAMESPACE, AS_NOBODY) if root else (IN_NAMESPACE,):
        give(folder, identity)
        complaint = _obstacle(identity, folder, program)
        if complaint is None:
            return identity
        complaints.append(complaint)
    raise RuntimeError(
        "Postgres runs neither as root nor as a user without a name, and there is no other user who can both"
        f" write {folder} and run {program} ({'; '.join(complaints)})."
        " Start as an ordinary user, or allow user namespaces."
    )


def _has_a_name(uid: int) -> bool:
    try:
        return bool(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return False


def give(folder: Path, identity: Identity) -> None:
    """Make `folder` and all in it the property of `identity`, if it is not already."""
    owner = os.geteuid() if identity.uid is None else identity.uid
    if folder.stat().st_uid == owner:
        return
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(parent, name), owner, owner, follow_symlinks=False)
    os.chown(folder, owner, owner)  # last, so that a walk cut short is made again


def _obstacle(identity: Identity, folder: Path, program: Path) -> str | None:
    if identity.prefix and shutil.which(identity.prefix[0]) is None:
        return f"no program {identity.prefix[0]}"
    name = "user namespace" if identity.prefix else f"user {NOBODY}"
    if not os.access(folder, os.W_OK):
        return f"{name}: its folder is closed to us"
    question = ["sh", "-c", 'test -w "$0" && test -x "$1"', str(folder), str(program)]
    answer = subprocess.run(  # noqa: S603 - fixed words and our own paths
        identity.command(question),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        start_new_session=True,  # a Ctrl-C is ours to handle
    )
    if answer.returncode == 0:
        return None
    return f"{name}: {answer.stderr.strip() or 'no access'}"
