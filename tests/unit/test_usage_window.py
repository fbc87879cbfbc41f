"""Of which time usage is told, where a question says little or what cannot be."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.domain.errors import Invalid
from shared.domain.usage import Group, Window, check_groups, window


def test_the_window_that_is_meant_when_none_is_given() -> None:
    noon = datetime(2026, 3, 31, 12, tzinfo=UTC)
    assert window(None, None, (), noon) == Window(datetime(2026, 3, 2, tzinfo=UTC), noon)
    assert window(60, 120, (), noon) == Window(
        datetime.fromtimestamp(60, UTC), datetime.fromtimestamp(120, UTC)
    )
    for start, end in ((120, 120), (2**32, None)):
        with pytest.raises(Invalid, match="before the end"):
            window(start, end, (), noon)
    with pytest.raises(Invalid, match="400 days"):
        window(0, None, [Group.DAY], noon)
    window(0, None, [Group.TEAM], noon)
    with pytest.raises(Invalid, match="'day' is given twice"):
        check_groups([Group.DAY, Group.TEAM, Group.DAY])
