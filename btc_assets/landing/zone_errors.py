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

    ZONE_REFUSED = auto()  # every request fails until a person changes something: the credentials, the bucket, the clock
    REFUSED = auto()  # this request fails until a person changes something
    GONE = auto()  # the object does not exist
    CHANGED = auto()  # the object has another ETag than the one asked for
    CORRUPT = auto()  # the bytes do not match the checksum that S3 stored
    TRANSIENT = auto()  # the request may succeed later


# The first row that holds a label of the error decides. A label is the name of the error's class or of a base class, the code that S3
# or SQS answered, the HTTP status, or Rust's name for an error of the operating system. ZONE_REFUSED comes first because a missing
# bucket is a 404, and TRANSIENT because S3 answers a request that took too long with a 400.
_MEANINGS: tuple[tuple[Meaning, frozenset[str]], ...] = (
    (
        Meaning.ZONE_REFUSED,
        frozenset(
            {
                *("NoSuchBucket", "InvalidBucketName", "PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException"),
                *("NonExistentQueue", "QueueDoesNotExist"),
                *("InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch", "IncompleteSignature", "401"),
                *("ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired", "UnrecognizedClientException"),
                *("AuthorizationHeaderMalformed", "InvalidSecurity", "MissingSecurityHeader", "RequestTimeTooSkewed", "RequestExpired"),
                *("AccountProblem", "AllAccessDisabled", "NotSignedUp", "OptInRequired", "InvalidPayer", "UnauthenticatedError"),
            }
        ),
    ),
    (
        Meaning.TRANSIENT,
        frozenset(
            {
                *("408", "425", "429", "RequestTimeout", "OperationAborted", "SlowDown", "OverLimit", "RequestLimitExceeded"),
                *("Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequestsException", "BandwidthLimitExceeded"),
            }
        ),
    ),
    (Meaning.GONE, frozenset({"NotFoundError", "FileNotFoundError", "NoSuchKey", "404"})),
    (Meaning.CHANGED, frozenset({"PreconditionError", "PreconditionFailed", "412"})),
    (
        Meaning.REFUSED,
        frozenset({"AccessDenied", "AccessDeniedException", "Forbidden", "PermissionDenied", "PermissionError", "InvalidObjectState"}),
    ),
    (Meaning.CORRUPT, frozenset({"FlexibleChecksumError"})),
)

# What to do about an object that S3 refuses to hand out, by the start of the code that it answered.
_OBJECT_ADVICE = {
    "InvalidObjectState": "it is archived: restore it (aws s3api restore-object), or copy it to the storage class STANDARD.",
    "KMS": "enable the KMS key that it is encrypted with, and allow kms:Decrypt with it.",
    "AccessDenied": "allow s3:GetObject on it, and kms:Decrypt if it is encrypted with a KMS key.",
    "MethodNotAllowed": "it is marked as deleted: restore it, or remove what remains of it.",
    "PermissionDenied": "let this user read it.",
    "PermissionError": "let this user read it.",
}

# obstore's names for failures of a connection that neither S3 nor the operating system described.
_CONNECTION_FAILURES = {
    "Timeout": f"no answer within {REQUEST_SECONDS} seconds",
    "Request": "the connection broke off before the answer",
    "Interrupted": "the connection broke off within the answer",
}


class ZoneRefused(UserError):
    """The landing zone refuses every request, whatever it asks for, until a person changes something."""


class Interrupted(TransientError):
    """Reading broke off halfway; an immediate second attempt is worthwhile."""


def is_refusal(error: Exception | None) -> bool:
    """Whether one object cannot be read until a person corrects something about it, while others may be readable."""
    return isinstance(error, UserError) and not isinstance(error, TransientError | ZoneRefused)


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
            ZoneRefused: every request is refused until a person changes something.
            UserError: this request is refused until a person changes something.
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
        kind = {Meaning.ZONE_REFUSED: ZoneRefused, Meaning.REFUSED: UserError}.get(meaning, transient)
        advice = _advice_on_object(error) if uri is not None and meaning is Meaning.REFUSED else None
        return kind(f"{action} {self._outcome} ({describe(error)}): {advice or self._advice}")


def _advice_on_object(error: Exception) -> str | None:
    """What to do about an object that is refused; None if the answer does not tell why, as that to HEAD."""
    classes = {cls.__name__ for cls in type(error).__mro__} - {PermissionError.__name__}
    names = [label for label in _labels(error) - classes if label and not label.isdecimal()]
    known = (advice for start, advice in _OBJECT_ADVICE.items() if any(name.startswith(start) for name in names))
    return next(known, "correct what keeps it from being read, or land it again." if names else None)


def meaning_of(error: Exception) -> Meaning:
    """Look the error up in the table. Of what is not in it, any other answer of 4xx is a refusal, and all else may pass."""
    labels = _labels(error)
    refused = any(re.fullmatch(r"4\d\d", label) for label in labels)
    return next(
        (meaning for meaning, known in _MEANINGS if not known.isdisjoint(labels)), Meaning.REFUSED if refused else Meaning.TRANSIENT
    )


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
        code = answer.get("Code", "")
        labels.update((code, code.rpartition(".")[2]))  # SQS puts its own name in front of some codes
        labels.add(str(getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPStatusCode", "")))
        return labels
    answered = re.findall(r"<Code>(.*?)</Code>|status code: (\d{3})", text)
    labels.update(label for pair in answered for label in pair if label)
    if not answered:
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
