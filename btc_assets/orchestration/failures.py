"""Failures in Dagster: each is one sentence, and only those that may pass by themselves are retried."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.domain.printable import printable
from btc_assets.store.errors import server_errors

# Five attempts within a minute and a half or so. After that, sensors request the slices again, at growing intervals.
RETRIES = dg.RetryPolicy(max_retries=4, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


@contextmanager
def plain_failures() -> Iterator[None]:
    """Turn a `UserError`, or an error of the database server, into a failure that Dagster shows as one sentence.

    The asset's retry policy applies to a `TransientError` only: an error that a person must correct fails at once.
    """
    try:
        with server_errors():
            yield
    except UserError as error:
        raise dg.Failure(description=printable(str(error)), allow_retries=isinstance(error, TransientError)) from error
