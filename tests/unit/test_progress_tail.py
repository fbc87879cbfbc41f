"""progress.jsonl as it grows: whole lines, once each, and none without end."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.domain.events import PROGRESS_FILE, PhaseLine
from worker.progress_tail import BadProgress, ProgressTail

LINE = PhaseLine(phase="loading", time=1.0)


def test_a_line_is_given_once_it_is_whole(tmp_path: Path) -> None:
    tail = ProgressTail(tmp_path)
    assert tail.new_lines() == []
    text = LINE.model_dump_json().encode() + b"\n"
    with (tmp_path / PROGRESS_FILE).open("ab", buffering=0) as file:
        file.write(text[:10])
        assert tail.new_lines() == []
        file.write(text[10:] + text)
    assert tail.new_lines() == [LINE, LINE]
    assert tail.new_lines() == []


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    tail = ProgressTail(tmp_path)
    (tmp_path / PROGRESS_FILE).write_bytes(b"x" * (4 * 1024 * 1024 + 1))
    assert tail.new_lines() == []
    with pytest.raises(BadProgress, match="more than 4194304 bytes"):
        tail.new_lines()
