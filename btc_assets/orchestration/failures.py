"""How failures look in Dagster: as one sentence, and retried only if they may pass by themselves."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.store.errors import server_errors

# Five attempts within about a minute and a half; after that the sensors ask again, at growing intervals.
RETRIES = dg.RetryPolicy(max_retries=4, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


@contextmanager
def plain_failures() -> Iterator[None]:
    """Show the one sentence of a `UserError`, or of an error of the server, as the failure in Dagster.

    The asset's retry policy applies to a `TransientError` only: what a person must correct fails at once.
    """
    try:
        with server_errors():
            yield
    except UserError as error:
        raise dg.Failure(description=str(error), allow_retries=isinstance(error, TransientError)) from error
