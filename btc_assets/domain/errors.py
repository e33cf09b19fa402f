"""The exceptions that a person is meant to read."""


class UserError(Exception):
    """One sentence that says what is wrong, where, and what to do about it.

    Raised wherever the cause is outside the code (a setting, the server, the landing zone, the data).
    The CLI prints it without a traceback; in Dagster it becomes the failure's description, and a run is
    not retried for it.
    """


class TransientError(UserError):
    """A `UserError` that may pass by itself, such as a server that does not answer: worth trying again."""
