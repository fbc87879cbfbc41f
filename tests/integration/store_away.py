"""A store in a folder that is away, until somebody has missed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from shared.settings import Settings


class StoreAway:
    """`n_missed`: how often it was missed so far."""

    def __init__(self, settings: Settings, n_missed: Callable[[], int]) -> None:
        self._folder = Path(urlsplit(settings.store_url).path)
        self._away = self._folder.with_name("store-away")
        self._n_missed, self._missed_before = n_missed, 0

    @property
    def is_away(self) -> bool:
        return self._away.exists()

    def hide(self) -> None:
        """A file stands where the folder was: nothing can be read or removed there."""
        self._missed_before = self._n_missed()
        self._folder.rename(self._away)
        self._folder.write_text("")

    def show_once_missed(self) -> None:
        if self.is_away and self._n_missed() > self._missed_before:
            self._folder.unlink()
            self._away.rename(self._folder)
