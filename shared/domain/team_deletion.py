"""Whether a team may be deleted with what it owns: asked for by name, and never by one of its own keys."""

from __future__ import annotations

from dataclasses import dataclass

from shared.domain.errors import Conflict, Invalid


@dataclass(frozen=True)
class Owned:
    """How much a team has that was not deleted."""

    jobs: int
    files: int

    @property
    def in_words(self) -> str:
        """Such as "2 jobs and 1 file"; empty where it has nothing."""
        counted = ((self.jobs, "job"), (self.files, "file"))
        return " and ".join(f"{count:,} {noun}{'s' * (count != 1)}" for count, noun in counted if count)


def check_confirmed(team: str, owned: Owned, confirm: str | None) -> None:
    """Raises Conflict where a team that owns something is to go without its name having been given again.

    And Invalid where that was given and is another name, whatever the team owns.
    """
    if confirm is not None and confirm != team:
        raise Invalid(
            f"confirm is {confirm[:80]!r}, and the team to delete is named {team!r}; nothing was deleted",
            param="confirm",
            code="not_confirmed",
        )
    if confirm is None and owned.in_words:
        raise Conflict(
            f"team {team} still owns {owned.in_words}; to delete it with all of that, for good, give its "
            f"name again: confirm={team}",
            param="confirm",
            code="team_not_empty",
        )


def check_not_own(team: str, team_id: str, caller_team_id: str) -> None:
    """Raises Conflict where the key that asks is one of the team's: it would end itself."""
    if team_id == caller_team_id:
        raise Conflict(
            f"this key belongs to team {team} and would end with it, before all is done; "
            "ask with the key of an admin of another team",
            code="own_team",
        )


def check_not_going(team: str, *, is_going: bool) -> None:
    """Raises Conflict where the team is being deleted: nothing is added to it any more."""
    if is_going:
        raise Conflict(
            f"team {team} is being deleted; a new team may take its name once it is gone",
            code="team_is_being_deleted",
        )
