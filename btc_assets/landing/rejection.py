"""The errors of parsers, and whatever else decoding raises, as one sentence that rejects the object."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from btc_assets.domain.errors import UserError
from btc_assets.landing.bounds import exceeded
from btc_assets.landing.raw import AGAIN, Damaged, ObjectRejected

# What the parsers raise for damaged content.
_DAMAGE = (
    pa.ArrowException, OSError, EOFError, ValueError, RuntimeError, struct.error, zlib.error, lzma.LZMAError, zipfile.BadZipFile,
)  # fmt: skip


@contextmanager
def rejecting(parsing: str | None = None) -> Iterator[None]:
    """Whatever is raised inside the block rejects the object that is being decoded there.

    Args:
        parsing: the format, such as `zip`, if its bytes are being parsed; errors may then mean that they are damaged.

    Raises:
        ObjectRejected: the content is unusable.
        UserError: the directory for temporary files fails, which is not the object's fault.
    """
    try:
        yield
    except (ObjectRejected, UserError):
        raise
    except Exception as error:
        raise _translate(error, parsing) from error


def _translate(error: Exception, parsing: str | None) -> Exception:
    if isinstance(error, OSError) and error.errno is not None:  # parsers that raise OSError set no number
        return UserError(f"The temporary copy of an object cannot be read or written ({error.strerror}): make room there, or set TMPDIR.")
    text = str(error).strip()
    line = text.splitlines()[0].rstrip(".")[:200] if text else ""
    if parsing and "straddles two block boundaries" in line:
        return exceeded("the length of a line", "(4 MiB)")
    if parsing and "decrypt" in line:
        return ObjectRejected(f"its {parsing} content is encrypted ({line}): land it without encryption")
    if parsing and isinstance(error, NotImplementedError):
        return ObjectRejected(f"its {parsing} content is whole, but uses what cannot be read here ({line}): write it without that")
    if parsing and isinstance(error, _DAMAGE):
        return Damaged(f"its {parsing} content is damaged or truncated ({line or type(error).__name__}){AGAIN}")
    what = f"its {parsing} content" if parsing else "it"
    return ObjectRejected(
        f"{what} cannot be decoded ({': '.join(filter(None, (type(error).__name__, line)))}): land it as plain rows of trades"
    )
