"""What one object may hold. Whatever exceeds a bound is rejected with the name of the bound.

A few kilobytes can decompress to gigabytes, or describe a million columns. The bounds keep every object below 300 MB of memory and
about ten times the time of an honest object of its size. They are far above what producers of trades write: a month's dump of a
hundred million rows stays far below each of them.
"""

from __future__ import annotations

from btc_assets.landing.raw import TooLarge

# Trades as CSV or JSON lines compress 5 to 15 times; DEFLATE reaches 1,000 times.
_DECOMPRESSED_FREE = 16 << 20
_DECOMPRESSED_FACTOR = 100

# A trade takes 6 bytes at least where it is compressed best: its id and time can be predicted, its price and quantity cannot.
_ROWS_FREE = 200_000
_BYTES_PER_ROW = 2

# The exchange's messages have 12 fields, its dumps 7 columns.
COLUMNS = 500
NAME_CHARACTERS = 256

# A trade takes about 200 bytes of text.
TEXT_BYTES = 8 << 10  # in one value that other rows refer to
LINE_BYTES = 1 << 20

# Of an object, the rows that are no valid trade: so many are kept, each with so much of its text. Further ones are only counted.
REJECTED_ROWS = 1_000
RECORD_CHARACTERS = 4_000

# Of raw tables: rows and cells, and bytes of text that are written once and repeated by reference.
BATCH_ROWS = 65_536
BATCH_CELLS = 32 * BATCH_ROWS
BATCH_TEXT_BYTES = 32 << 20

# Python keeps 15 times as much for the directory of a zip file: 4 MiB name some 40,000 members.
ZIP_DIRECTORY_BYTES = 4 << 20
ZIP_DEPTH = 3  # zip files within zip files
# A member that cannot be read from front to end, such as Parquet, is copied first. Such a member hardly compresses.
_COPIED_FREE = 16 << 20
_COPIED_FACTOR = 4


class Bounds:
    """What an object of `size` bytes may still hold.

    Raises:
        TooLarge: from each method, if that is exceeded.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = _DECOMPRESSED_FREE + _DECOMPRESSED_FACTOR * size
        self._rows = _ROWS_FREE + size // _BYTES_PER_ROW
        self._copied = _COPIED_FREE + _COPIED_FACTOR * size

    def expect_bytes(self, count: int) -> None:
        """The object says that it decompresses to `count` bytes."""
        if count > self._bytes:
            raise self._exceeded("decompressed bytes")

    def take_bytes(self, count: int) -> None:
        """`count` bytes were decompressed."""
        self.expect_bytes(count)
        self._bytes -= count

    def expect_rows(self, count: int) -> None:
        """The object says that it holds `count` rows."""
        if count > self._rows:
            raise self._exceeded("rows")

    def take_rows(self, count: int) -> None:
        """`count` rows were read."""
        self.expect_rows(count)
        self._rows -= count

    def take_copied(self, count: int) -> None:
        """A member of `count` bytes is copied."""
        if count > self._copied:
            raise self._exceeded("bytes of members that have to be copied")
        self._copied -= count

    def _exceeded(self, what: str) -> TooLarge:
        return exceeded(what, f"for an object of {self._size:,} bytes")


def exceeded(what: str, limit: str) -> TooLarge:
    """The rejection of an object that exceeds a bound."""
    return TooLarge(f"it exceeds the bound on {what} {limit}: land trades as an exchange or a collector writes them")


def require_columns(count: int) -> None:
    """Refuse an object of so many columns, or of messages with so many different keys.

    Raises:
        TooLarge: there are more than `COLUMNS`.
    """
    if count > COLUMNS:
        raise exceeded("columns", f"({COLUMNS})")
