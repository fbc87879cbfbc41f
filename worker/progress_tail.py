"""progress.jsonl, read while the trainer writes it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from shared.domain.events import PROGRESS_FILE, PROGRESS_LINE, ProgressLine
from worker.run_files import open_plain

_MOST_BYTES = 4 * 1024 * 1024


class BadProgress(Exception):
    """A line that is none: trainer and supervisor are not of one version, or a model wrote into the file."""


class ProgressTail:
    """Gives each whole line once; of one that is not whole yet it keeps no more than a line may have."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._offset = 0
        self._begun = b""

    def new_lines(self) -> list[ProgressLine]:
        """The lines since the last call. Raises BadProgress, and NotAPlainFile for a link."""
        try:
            with open_plain(self._run, PROGRESS_FILE) as file:
                file.seek(self._offset)
                data = file.read(_MOST_BYTES)
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *whole, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > _MOST_BYTES:
            raise BadProgress(f"{PROGRESS_FILE} has a line of more than {_MOST_BYTES} bytes")
        return [_parse(line) for line in whole]


def _parse(line: bytes) -> ProgressLine:
    try:
        return PROGRESS_LINE.validate_json(line)
    except ValidationError as error:
        shown = line[:200].decode(errors="replace")
        raise BadProgress(f"{PROGRESS_FILE} has a line that is no line of progress: {shown!r}") from error
