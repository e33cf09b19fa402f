"""Until what time the folders of a window are settled: no object in them is still to be read."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from btc_assets.domain.slices import EPOCH, Window
from btc_assets.landing.objects import LandedObject

_HOUR = timedelta(hours=1)


class SettledFolders:
    """Follows how the objects of a window are read, day by day, and tells of what is settled.

    Args:
        prefixes: how many prefixes the objects of a day come from.
        tell: called with the time before which all folders are settled.
    """

    def __init__(self, prefixes: int, tell: Callable[[datetime], object]) -> None:
        self._prefixes, self._tell = prefixes, tell
        self._day: Window | None = None
        self._unlisted = 0  # prefixes of the day
        self._waiting: deque[tuple[datetime, str]] = deque()
        self._read = set[str]()

    def begin(self, day: Window, prefixes: int, objects: Iterable[LandedObject]) -> list[LandedObject]:
        """Follow further objects of a day, or of the next one.

        Args:
            day: the folders' minutes.
            prefixes: how many of the prefixes were listed.
            objects: of these, that are to be read; those of the same day were read before.

        Returns:
            The objects in the order to read them, hour by hour, whatever their prefix.
        """
        if day != self._day:
            self._day, self._unlisted = day, self._prefixes
        self._unlisted -= prefixes
        starts = sorted(((obj.folder_time or day.start, obj) for obj in objects), key=lambda each: (each[0] - EPOCH) // _HOUR)
        self._waiting = deque(sorted((start, obj.uri) for start, obj in starts))
        self._read.clear()
        self.read(())
        return [obj for _, obj in starts]

    def read(self, objects: Sequence[LandedObject]) -> None:
        """Note that objects were read and recorded."""
        self._read.update(obj.uri for obj in objects)
        while self._waiting and self._waiting[0][1] in self._read:
            self._waiting.popleft()
        if self._day is not None and not self._unlisted:
            self._tell(self._waiting[0][0] if self._waiting else self._day.end)
