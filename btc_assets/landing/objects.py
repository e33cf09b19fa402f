"""Landed objects: what a listing says about one, and what can go wrong when it is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from btc_assets.domain.feeds import FolderSpan, folder_span
from btc_assets.domain.objects import ObjectVersion
from btc_assets.domain.slices import floor_slice

LARGE_BYTES = 8 << 20  # larger objects go to a temporary file and are decoded piece by piece, so that memory stays bounded


@dataclass(frozen=True, order=True)
class LandedObject:
    """One object as a listing shows it.

    Attributes:
        uri: its address.
        etag: the store's tag of its content; empty if the store gives none.
        size: in bytes.
        last_modified: when it was written, by the store's clock.
        prefix: the feed's prefix that it landed under.
    """

    uri: str
    etag: str
    size: int
    last_modified: datetime
    prefix: str = ""

    @property
    def version(self) -> ObjectVersion:
        """The URI and ETag, which together identify the content."""
        return ObjectVersion(self.uri, self.etag)

    @property
    def is_large(self) -> bool:
        """Whether it is read into a temporary file instead of memory."""
        return self.size > LARGE_BYTES

    @property
    def folder_time(self) -> datetime | None:
        """When the collector opened the object, by its own clock: the start of the time in the folders; None if they hold no time."""
        return self.folder_span.start if self.folder_span else None

    @cached_property
    def folder_span(self) -> FolderSpan | None:
        """The minute, hour or day that the folders name; None if they hold no time."""
        # Search from the end: the landing zone's own URL may contain the prefix as well.
        match = re.search(rf"/({re.escape(self.prefix)}/\d{{4}}(?:/\d\d){{2,4}}/[^/]+)$", self.uri)
        return folder_span(self.prefix, match[1]) if match else None

    def is_newer_than(self, time: datetime) -> bool:
        """Whether it was written after `time`, by at least a second, because some answers of S3 round to whole seconds."""
        return self.last_modified - time >= timedelta(seconds=1)

    @property
    def home_slice(self) -> datetime:
        """The slice that it most likely belongs to, judged before it is read: by its folder, but not after it was written."""
        return floor_slice(min(self.folder_time or self.last_modified, self.last_modified))


class ObjectGone(Exception):
    """The object no longer exists; the message is its URI."""


class ObjectChanged(Exception):
    """The object has another ETag than the listing showed; the message is its URI."""


class ObjectCorrupt(Exception):
    """The bytes do not match their checksum, after several attempts; the message says which checksum."""
