"""What identifies one version of an object in the landing zone."""

from __future__ import annotations

from typing import NamedTuple


class ObjectVersion(NamedTuple):
    """A URI and an ETag, which together name one content.

    A URI alone does not: an object can be overwritten under its own name.
    """

    uri: str
    etag: str
