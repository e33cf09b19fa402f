"""Every error of S3, SQS and the file system has one meaning, and reaches a person as one sentence."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, FlexibleChecksumError, ReadTimeoutError
from obstore.exceptions import GenericError, NotFoundError, PermissionDeniedError, PreconditionError

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.landing.objects import ObjectChanged, ObjectCorrupt, ObjectGone
from btc_assets.landing.zone import LandingZone
from btc_assets.landing.zone_errors import ErrorTranslator, Interrupted, Meaning, ZoneRefused, describe, is_refusal, meaning_of
from btc_assets_tests.support.fault_proxy import FaultProxy
from btc_assets_tests.support.landed import PREFIX, S3_ADVICE, land, window
from btc_assets_tests.support.s3 import Bucket

URI = "s3://landing/object"


def boto3_error(code: str, status: int | None = None) -> ClientError:
    answer = {"ResponseMetadata": {"HTTPStatusCode": status}} if status else {}
    return ClientError({"Error": {"Code": code, "Message": "As S3 says."}} | answer, "GetObject")


def xml(code: str, status: int = 404) -> str:
    """The text of an obstore error with an answer of S3."""
    return f"Server returned non-2xx status code: {status} Some Words: <Error><Code>{code}</Code><Message>As S3 says.</Message></Error>"


DENIED_FILE = 'Unable to open file x\n\nDebug source:\nOs {\n code: 13,\n kind: PermissionDenied,\n message: "Permission denied",\n}'
NO_ANSWER = "HTTP error\n\nDebug source:\nHttpError {\n    kind: Timeout,\n}"

# An error, what it means, and how it is described.
ERRORS: list[tuple[Exception, Meaning, str]] = [
    (FileNotFoundError(xml("NoSuchBucket")), Meaning.ZONE_REFUSED, "NoSuchBucket: As S3 says"),
    (GenericError(xml("SignatureDoesNotMatch")), Meaning.ZONE_REFUSED, "SignatureDoesNotMatch: As S3 says"),
    (PermissionDeniedError("HEAD x: status code: 403 Forbidden: \n\nmore"), Meaning.REFUSED, "HEAD x: status code: 403 Forbidden"),
    (GenericError(DENIED_FILE), Meaning.REFUSED, "Permission denied"),
    (PermissionError(13, "Permission denied"), Meaning.REFUSED, "[Errno 13] Permission denied"),
    (boto3_error("AccessDenied"), Meaning.REFUSED, "AccessDenied: As S3 says"),
    (boto3_error("AWS.SimpleQueueService.NonExistentQueue"), Meaning.ZONE_REFUSED, "AWS.SimpleQueueService.NonExistentQueue: As S3 says"),
    (boto3_error("InvalidObjectState"), Meaning.REFUSED, "InvalidObjectState: As S3 says"),
    (boto3_error("KMS.DisabledException", 400), Meaning.REFUSED, "KMS.DisabledException: As S3 says"),
    (GenericError(xml("KMS.KMSInvalidStateException", 400)), Meaning.REFUSED, "KMS.KMSInvalidStateException: As S3 says"),
    (boto3_error("MethodNotAllowed", 405), Meaning.REFUSED, "MethodNotAllowed: As S3 says"),
    (boto3_error("SomethingNew", 418), Meaning.REFUSED, "SomethingNew: As S3 says"),
    (boto3_error("ExpiredToken", 400), Meaning.ZONE_REFUSED, "ExpiredToken: As S3 says"),
    (boto3_error("RequestTimeTooSkewed", 403), Meaning.ZONE_REFUSED, "RequestTimeTooSkewed: As S3 says"),
    (boto3_error("RequestTimeout", 400), Meaning.TRANSIENT, "RequestTimeout: As S3 says"),
    (boto3_error("SomethingNew", 429), Meaning.TRANSIENT, "SomethingNew: As S3 says"),
    (boto3_error("SomethingNew", 503), Meaning.TRANSIENT, "SomethingNew: As S3 says"),
    (FileNotFoundError(xml("NoSuchKey")), Meaning.GONE, "NoSuchKey: As S3 says"),
    (NotFoundError("Object at location Denied/NoSuchBucket not found"), Meaning.GONE, "Object at location Denied/NoSuchBucket not found"),
    (boto3_error("NoSuchKey"), Meaning.GONE, "NoSuchKey: As S3 says"),
    (PreconditionError("Request precondition failure"), Meaning.CHANGED, "Request precondition failure"),
    (boto3_error("PreconditionFailed"), Meaning.CHANGED, "PreconditionFailed: As S3 says"),
    (FlexibleChecksumError(error_msg="Expected a, got b"), Meaning.CORRUPT, "Expected a, got b"),
    (boto3_error("SlowDown"), Meaning.TRANSIENT, "SlowDown: As S3 says"),
    (GenericError(NO_ANSWER), Meaning.TRANSIENT, "no answer within 30 seconds"),
    (ReadTimeoutError(endpoint_url="http://s3"), Meaning.TRANSIENT, 'Read timeout on endpoint URL: "http://s3"'),
    (OSError(5, "Input/output error"), Meaning.TRANSIENT, "[Errno 5] Input/output error"),
]
each_error = pytest.mark.parametrize(
    ("error", "meaning", "words"), ERRORS, ids=[f"{type(error).__name__}: {words}" for error, _, words in ERRORS]
)

# What each meaning is raised as.
TRANSLATED: dict[Meaning, tuple[type[Exception], str]] = {
    Meaning.ZONE_REFUSED: (ZoneRefused, "Reading it failed ({}): look there."),
    Meaning.REFUSED: (UserError, "of each"),
    Meaning.GONE: (ObjectGone, URI),
    Meaning.CHANGED: (ObjectChanged, URI),
    Meaning.CORRUPT: (ObjectCorrupt, "the bytes do not match the checksum that S3 stored"),
    Meaning.TRANSIENT: (Interrupted, "Reading it failed ({}): look there."),
}


@each_error
def test_an_error_has_a_meaning_and_a_short_description(error: Exception, meaning: Meaning, words: str) -> None:
    assert (meaning_of(error), describe(error)) == (meaning, words)


@each_error
def test_each_meaning_is_an_exception_of_ours(error: Exception, meaning: Meaning, words: str) -> None:
    kind, message = TRANSLATED[meaning]
    with pytest.raises(kind) as raised, ErrorTranslator("look there.").during("Reading it", uri=URI, transient=Interrupted):
        raise error
    assert type(raised.value) is kind
    if meaning is Meaning.REFUSED:
        assert str(raised.value).startswith(f"Reading it failed ({words}): ")
    else:
        assert str(raised.value) == message.format(words)
    assert raised.value.__cause__ is error


ADVICE = [
    ("InvalidObjectState", 403, "it is archived: restore it (aws s3api restore-object), or copy it to the storage class STANDARD."),
    ("KMS.DisabledException", 400, "enable the KMS key that it is encrypted with, and allow kms:Decrypt with it."),
    ("KMS.KMSInvalidStateException", 400, "enable the KMS key that it is encrypted with, and allow kms:Decrypt with it."),
    ("AccessDenied", 403, "allow s3:GetObject on it, and kms:Decrypt if it is encrypted with a KMS key."),
    ("SomethingNew", 409, "correct what keeps it from being read, or land it again."),
]


@pytest.mark.parametrize(("code", "status", "advice"), ADVICE)
def test_an_object_that_is_refused_comes_with_what_to_do(code: str, status: int, advice: str) -> None:
    for error in (boto3_error(code, status), GenericError(xml(code, status))):
        with pytest.raises(UserError) as raised, ErrorTranslator("look there.").during("Reading it", uri=URI):
            raise error
        assert (is_refusal(raised.value), str(raised.value)) == (True, f"Reading it failed ({code}: As S3 says): {advice}")


def test_only_a_request_for_a_single_object_can_find_it_gone() -> None:
    with pytest.raises(TransientError, match=r"^Listing it failed"), ErrorTranslator("look there.").during("Listing it"):
        raise FileNotFoundError(2, "No such file or directory")


@pytest.mark.parametrize("error", [ValueError("ours"), KeyError("ours"), UserError("ours")], ids=repr)
def test_an_error_of_another_origin_passes_through(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, ErrorTranslator("look there.").during("Reading it"):
        raise error
    assert raised.value is error


# ---- on a real server

ETAGS = pytest.mark.parametrize("etag", ["md5", "opaque"])


@ETAGS
def test_a_wrong_secret_is_one_sentence_that_does_not_reveal_it(s3: Bucket, monkeypatch: pytest.MonkeyPatch, etag: str) -> None:
    obj = land(s3.zone())
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret")
    zone = s3.zone(etag=etag)
    for ask in (
        lambda: zone.read(obj),
        lambda: list(zone.list_all(PREFIX)),
        lambda: zone.head(obj.uri, PREFIX),
        lambda: zone.put("o", b"x"),
    ):
        with pytest.raises(UserError) as failed:
            ask()
        assert str(failed.value).endswith(f"): {S3_ADVICE}")
        assert "\n" not in str(failed.value)
        assert "secret" not in str(failed.value)


@ETAGS
def test_a_missing_bucket_is_one_sentence_and_no_object_counts_as_gone(s3: Bucket, proxy: FaultProxy, etag: str) -> None:
    missing = LandingZone("s3://missing/some/prefix", endpoint=s3.server.endpoint)
    obj = land(s3.zone())
    zone = s3.zone(endpoint=proxy.endpoint, etag=etag)
    proxy.fail("404")  # this server has other words for it where an ETag is asked for
    for ask in (
        lambda: list(missing.list_all(PREFIX)),
        lambda: missing.list_window(PREFIX, window("10", "11")),
        lambda: missing.days(PREFIX, set()),
        lambda: missing.get(f"{PREFIX}/o"),
        lambda: zone.read(obj),
    ):
        with pytest.raises(UserError, match="The specified bucket does not exist") as failed:
            ask()
        assert str(failed.value).endswith(f"): {S3_ADVICE}")


@ETAGS
def test_an_unreachable_server_is_one_sentence(s3: Bucket, etag: str) -> None:
    obj = land(s3.zone())
    zone = s3.zone(endpoint="http://127.0.0.1:1", etag=etag, retries=1)
    for ask in (lambda: zone.read(obj), lambda: zone.list_window(PREFIX, window("10", "11")), lambda: zone.head(obj.uri, PREFIX)):
        with pytest.raises(UserError, match=r"failed \(Co.*\): ") as failed:  # Connection refused, Could not connect
            ask()
        assert str(failed.value).endswith(S3_ADVICE)
