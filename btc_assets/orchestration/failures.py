"""How failures look in Dagster: as their one sentence, and tried again where they may pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from btc_assets.domain.errors import TransientError, UserError
from btc_assets.store.database import server_errors

# Five attempts within about a minute and a half; what takes longer is asked for again by the sensors, ever more rarely.
RETRIES = dg.RetryPolicy(max_retries=4, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)

_patient = True


@contextmanager
def plain_failures() -> Iterator[None]:
    """Show in Dagster the one sentence of a `UserError`, and of what the server says, wherever it says it.

    It is tried again only where it may pass: what a person must mend does not.
    """
    try:
        with server_errors():
            yield
    except UserError as error:
        raise dg.Failure(description=str(error), allow_retries=_patient and isinstance(error, TransientError)) from error


@contextmanager
def impatient() -> Iterator[None]:
    """For who waits in front of a terminal: what fails is said at once."""
    global _patient
    before, _patient = _patient, False
    try:
        yield
    finally:
        _patient = before
