"""Errors that are meant for a person to read."""


class UserError(Exception):
    """One sentence that says what is wrong, where, and what to do about it.

    Raised if the cause lies outside the code: a setting, the server, the landing zone, the data. The command line prints it
    without a traceback. In Dagster it becomes the description of the failure, and the run is not retried.
    """


class TransientError(UserError):
    """A `UserError` that may go away by itself, such as a server that does not answer; Dagster retries it."""
