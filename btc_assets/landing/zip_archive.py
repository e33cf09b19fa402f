"""Zip archives: their members are read by what they hold. Whatever is left out is told by name."""

from __future__ import annotations

import bz2
import copy
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa

from btc_assets.landing.bounds import ZIP_DIRECTORY_BYTES, Bounds, exceeded
from btc_assets.landing.raw import REASON, UNPARSED, Damaged, NoRows, ObjectRejected, TooLarge, join_names
from btc_assets.landing.rejection import rejecting

# Opens a member: its format and its raw tables. Called with what opens its bytes from their start, and its size.
ReadMember = Callable[[Callable[[], BinaryIO], int], tuple[str, Iterator[pa.Table]]]

_TOLD = 1_000  # members whose names are told
_KNOWN_METHODS = {1: "shrunk", 6: "imploded", 9: "deflate64", 93: "zstd", 95: "xz", 98: "PPMd"}  # that Python cannot read
_READABLE_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_PASSWORD = 0x1  # flag of a member
_CHECKSUMS = (".checksum", ".md5", ".sha256", ".sha512")


@dataclass(frozen=True)
class _Unread:
    """A member that is left out, and why."""

    name: str
    reason: str


def read_zip(file: BinaryIO, bounds: Bounds, read_member: ReadMember, notes: dict[str, Any]) -> Iterator[pa.Table]:
    """The raw tables of all members that hold trades, and at the end a row for each member that was left out.

    Args:
        file: the archive.
        bounds: of the object.
        read_member: opens a member.
        notes: gets the names of the members that were left out, and of empty ones.

    Raises:
        ObjectRejected: the archive or a member is damaged or exceeds a bound, or no member can be read.
    """
    _require_small_directory(file)
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not _is_skipped(member)]
        if min((member.header_offset for member in archive.infolist()), default=0):
            raise ObjectRejected(
                "other data stands before its first member, as of several zip files one after another: land each on its own"
            )
        bounds.expect_bytes(sum(member.file_size for member in members if member.compress_type in _READABLE_METHODS))
        read, unread, empty = 0, list[_Unread](), list[str]()
        for member in members:
            if not member.file_size:
                empty.append(_printable(member.filename))
                continue
            try:
                tables, first = _open(archive, member, read_member)
            except NoRows:
                empty.append(_printable(member.filename))
                continue
            except (Damaged, TooLarge):
                raise
            except ObjectRejected as reason:
                unread.append(_Unread(_printable(member.filename), str(reason)))
                continue
            read += 1
            yield first
            yield from tables
    if empty:
        notes["empty_members"] = empty[:_TOLD]
    if not read:
        raise _nothing_read(unread, empty)
    if unread:
        notes["unread_members"] = [member.name for member in unread[:_TOLD]]
        reasons = [f"the member {member.name} of the zip file is not read: {member.reason}" for member in unread[:_TOLD]]
        yield pa.table({UNPARSED: [member.name for member in unread[:_TOLD]], REASON: reasons})


def find_zip_format(file: BinaryIO, read_member: ReadMember) -> str:
    """The format of the first member that holds something, for people; `zip` if there is none."""
    with rejecting("zip"):
        _require_small_directory(file)
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.file_size and not _is_skipped(member):
                    try:
                        return f"{read_member(partial(_unpack, archive, member), member.file_size)[0]}.zip"
                    except (ObjectRejected, RuntimeError):
                        continue
    return "zip"


def _open(archive: zipfile.ZipFile, member: zipfile.ZipInfo, read_member: ReadMember) -> tuple[Iterator[pa.Table], pa.Table]:
    """The raw tables of a member, and the first of them, which shows whether it holds trades."""
    if member.flag_bits & _PASSWORD:
        raise ObjectRejected("it has a password: land it without one")
    if member.compress_type not in _READABLE_METHODS:
        method = _KNOWN_METHODS.get(member.compress_type, f"method {member.compress_type}")
        raise ObjectRejected(f"it is compressed with {method}, which cannot be read here: compress it with deflate")
    with rejecting("zip"):
        _, tables = read_member(partial(_unpack, archive, member), member.file_size)
        try:
            first = next(tables, None)
        except UnicodeDecodeError:  # the archive's checksums tell what is damaged
            raise ObjectRejected("it is no text in UTF-8") from None
    if first is None:
        raise NoRows
    if not _may_hold_trades(first.column_names):
        raise ObjectRejected(f"it holds no trades (its columns: {join_names(first.column_names)})")
    return tables, first


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> BinaryIO:
    """The bytes of a member, unpacked as they are read."""
    if member.compress_type != zipfile.ZIP_BZIP2:
        return archive.open(member)  # type: ignore[return-value]  # it reads bytes as one
    # zipfile unpacks 4 KiB at once, which bzip2 can make of 4 GB. Its blocks have checksums of their own.
    packed = copy.copy(member)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, member.compress_size
    del packed.CRC
    return bz2.BZ2File(archive.open(packed))  # type: ignore[return-value]


def _may_hold_trades(names: list[str]) -> bool:
    """Whether a table is one of trades, or has rows that cannot be parsed; `decode.py` decides the rest."""
    return UNPARSED in names or ("price" in names or "p" in names)


def _nothing_read(unread: list[_Unread], empty: list[str]) -> ObjectRejected:
    if not unread:
        return NoRows() if empty else ObjectRejected("the zip file holds no file of trades: land the dump as the exchange publishes it")
    first = unread[0]
    if len(unread) == 1:
        return ObjectRejected(first.reason)
    return ObjectRejected(f"none of the {len(unread)} members of the zip file is read; the first, {first.name}: {first.reason}")


def _is_skipped(member: zipfile.ZipInfo) -> bool:
    """Whether it is a folder, a hidden file or a checksum."""
    parts = member.filename.replace("\\", "/").split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts) or "__MACOSX" in parts
    return member.is_dir() or hidden or member.filename.lower().endswith(_CHECKSUMS)


def _printable(name: str) -> str:
    """The name for people, whatever it is made of."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name[:200])


def _require_small_directory(file: BinaryIO) -> None:
    """Refuse an archive of very many members before they are all read into memory."""
    file.seek(0, 2)
    size = file.tell()
    file.seek(max(0, size - (1 << 16) - 22))  # the end record, and the longest comment
    tail = file.read()
    file.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        return  # no zip file, which `zipfile` says
    (directory,) = struct.unpack_from("<I", tail, at + 12)
    if directory == 0xFFFFFFFF:  # of more than 4 GiB, or the record of zip64 tells
        zip64 = tail.rfind(b"PK\x06\x06", 0, at)
        (directory,) = struct.unpack_from("<Q", tail, zip64 + 40) if 0 <= zip64 <= len(tail) - 48 else (directory,)
    if directory > ZIP_DIRECTORY_BYTES:
        raise exceeded("the directory of a zip file", f"({ZIP_DIRECTORY_BYTES:,} bytes)")


def copy_member(open_member: Callable[[], BinaryIO], size: int, bounds: Bounds) -> BinaryIO:
    """A copy of a member that can be read in any order; a large one goes to a temporary file without a name."""
    bounds.take_copied(size)
    copy = tempfile.SpooledTemporaryFile(max_size=8 << 20, prefix="btc_assets-")  # noqa: SIM115  # the caller closes it
    try:
        with open_member() as member:
            while piece := member.read(1 << 20):
                copy.write(piece)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return copy  # type: ignore[return-value]  # it reads bytes as one
