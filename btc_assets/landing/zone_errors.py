"""Errors of obstore, botocore and the file system: the one table that says what each means, and its translation to ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto

from obstore.exceptions import BaseError

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.landing.objects import ObjectChanged, ObjectCorrupt, ObjectGone
from btc_assets.landing.s3 import REQUEST_SECONDS


class Meaning(Enum):
    """What an error means to the caller."""

    REFUSED = auto()  # the request fails until a person changes something
    GONE = auto()  # the object does not exist
    CHANGED = auto()  # the object has another ETag than the one asked for
    CORRUPT = auto()  # the bytes do not match the checksum that S3 stored
    TRANSIENT = auto()  # the request may succeed later


# The first row that holds a label of the error decides; an error that no row holds is TRANSIENT. A label is the name of the
# error's class or of a base class, the code that S3 or SQS answered, Rust's name for an error of the operating system, or,
# for an answer without a code (such as one to HEAD), the HTTP status. REFUSED comes first because a missing bucket is a 404.
_MEANINGS: tuple[tuple[Meaning, frozenset[str]], ...] = (
    (
        Meaning.REFUSED,
        frozenset(
            {
                *("NoSuchBucket", "NonExistentQueue", "QueueDoesNotExist"),
                *("AccessDenied", "AccessDeniedException", "Forbidden", "401", "403"),
                *("InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch"),
                *("PermissionDenied", "PermissionError"),
            }
        ),
    ),
    (Meaning.GONE, frozenset({"NotFoundError", "FileNotFoundError", "NoSuchKey", "404"})),
    (Meaning.CHANGED, frozenset({"PreconditionError", "PreconditionFailed", "412"})),
    (Meaning.CORRUPT, frozenset({"FlexibleChecksumError"})),
)

# obstore's names for failures of a connection that neither S3 nor the operating system described.
_CONNECTION_FAILURES = {
    "Timeout": f"no answer within {REQUEST_SECONDS} seconds",
    "Request": "the connection broke off before the answer",
    "Interrupted": "the connection broke off within the answer",
}


class Interrupted(TransientError):
    """Reading broke off halfway; an immediate second attempt is worthwhile."""


class ErrorTranslator:
    """Turns errors of obstore, botocore and the file system into ours.

    Args:
        advice: what a person should check, as the end of a sentence.
        outcome: what the action did, between its description and the reason.
    """

    def __init__(self, advice: str, outcome: str = "failed") -> None:
        self._advice = advice
        self._outcome = outcome

    @contextmanager
    def during(self, action: str, *, uri: str | None = None, transient: type[TransientError] = TransientError) -> Iterator[None]:
        """Translate what is raised inside the block; errors of other origins pass through.

        Args:
            action: what is being done, as the start of a sentence, such as `Reading s3://bucket/object`.
            uri: the object that is being asked for, if it is a single one.
            transient: what to raise for an error that may pass.

        Raises:
            UserError: the request is refused until a person changes something.
            TransientError: the request may succeed later.
            ObjectGone, ObjectChanged: the object `uri` is not there, or not with the ETag asked for.
            ObjectCorrupt: the bytes do not match the checksum that S3 stored.
        """
        try:
            yield
        except Exception as error:
            if not _is_foreign(error):
                raise
            raise self._translate(error, action, uri, transient) from error

    def _translate(self, error: Exception, action: str, uri: str | None, transient: type[TransientError]) -> Exception:
        meaning = meaning_of(error)
        if uri is not None and meaning is Meaning.GONE:
            return ObjectGone(uri)
        if uri is not None and meaning is Meaning.CHANGED:
            return ObjectChanged(uri)
        if meaning is Meaning.CORRUPT:
            return ObjectCorrupt("the bytes do not match the checksum that S3 stored")
        kind = UserError if meaning is Meaning.REFUSED else transient
        return kind(f"{action} {self._outcome} ({describe(error)}): {self._advice}")


def meaning_of(error: Exception) -> Meaning:
    """Look the error up in the table."""
    labels = _labels(error)
    return next((meaning for meaning, known in _MEANINGS if not known.isdisjoint(labels)), Meaning.TRANSIENT)


def describe(error: Exception) -> str:
    """What went wrong, in a few words: those of S3, SQS or the operating system, ours, or the first line of the error."""
    if answer := _answered_error(error):
        return f"{answer.get('Code')}: {answer.get('Message')}".rstrip(".")
    text = str(error)
    if match := re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", text, re.DOTALL):
        return f"{match[1]}: {match[2]}".rstrip(".")
    if match := re.search(r'(?:message|error): "([^"]+)"', text):
        return match[1]
    if (match := re.search(r"HttpError \{\s*kind: (\w+)", text)) and match[1] in _CONNECTION_FAILURES:
        return _CONNECTION_FAILURES[match[1]]
    return next((line.strip(" :.") for line in text.splitlines() if line.strip()), type(error).__name__)


def _labels(error: Exception) -> set[str]:
    """The names that the table may know the error by."""
    labels = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    if answer := _answered_error(error):
        labels.add(answer.get("Code", "").rpartition(".")[2])  # SQS puts its own name in front of some codes
    elif (match := re.search(r"<Code>(.*?)</Code>", text)) or (match := re.search(r"status code: (\d{3})", text)):
        labels.add(match[1])
    else:
        labels.update(re.findall(r"\bkind: (\w+)", text))
    return labels


def _answered_error(error: Exception) -> dict[str, str]:
    """Code and message of a botocore `ClientError`; empty for other errors."""
    response = getattr(error, "response", None)
    return response.get("Error", {}) if isinstance(response, dict) else {}


def _is_foreign(error: Exception) -> bool:
    # By the name of the module, because importing botocore takes a tenth of a second that only S3 should cost.
    if isinstance(error, BaseError | OSError):
        return True
    return any(cls.__module__.partition(".")[0] == "botocore" for cls in type(error).__mro__)
