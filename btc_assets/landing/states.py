"""The states of the registry, and every transition between them.

A row of `landing.raw_blobs_5m` is one version of an object under one slice. Its state is two facts, which are kept apart on purpose:
its status says what the landing zone holds, and `loaded` says whether ticks of the table come from this version now.

`landing/registry.py` holds all statements that change either fact. The transitions below say what those statements do; a test runs
every statement from every state and compares. docs/architecture.md shows the same transitions.
"""

from __future__ import annotations

from enum import Enum, StrEnum
from itertools import product
from typing import NamedTuple


class Status(StrEnum):
    """What the landing zone holds of a version, as far as the store knows."""

    NOTICED = "noticed"  # seen, and not read yet
    REGISTERED = "registered"  # there, and readable
    REJECTED = "rejected"  # there, and unreadable
    SUPERSEDED = "superseded"  # overwritten, read again with another result, or deleted after it was rejected
    GONE = "gone"  # not there any more


class SliceState(StrEnum):
    """What the rows of a slice add up to: `state` of the view `landing.slices`, which takes the first one that holds, in this order."""

    SOURCE_GONE = "source gone"  # an object that it was loaded from is gone
    STALE = "stale"  # a row is unsettled, and something is loaded
    PENDING = "pending"  # a row is unsettled, and nothing is loaded
    REJECTED = "rejected"  # an object is unreadable; all others are loaded
    LOST = "lost"  # an object disappeared before it was loaded
    LOADED = "loaded"  # the table holds what the landing zone holds


class State(NamedTuple):
    """The state of a row; `loaded` is true while `loaded_at` is set."""

    status: Status
    loaded: bool

    def __str__(self) -> str:
        return f"{self.status}, {'loaded' if self.loaded else 'not loaded'}"


# The table differs from the landing zone because of these rows: work to do. SQL: landing.is_unsettled.
UNSETTLED = frozenset(
    {
        State(Status.NOTICED, False),
        State(Status.NOTICED, True),
        State(Status.REGISTERED, False),
        State(Status.SUPERSEDED, True),
    }
)

# Ticks of the table come from an object that is gone: for a person to decide (promise 6). SQL: landing.is_source_gone.
SOURCE_GONE = State(Status.GONE, True)


class Event(StrEnum):
    """What happens to a row. A version has rows under several slices, and what happens to it can be a different event for each of them."""

    SEEN = "a listing or an S3 event shows the version"
    WRITTEN_AGAIN = "a listing or an S3 event shows that the version was written again since it was rejected"
    READABLE = "the version was read, and it covers the slice"
    UNREADABLE = "the version was read, it is unreadable, and the slice is that of its folder"
    NOT_COVERED = "the version was read, and it does not cover the slice"
    NO_LONGER_COVERED = "the version was read again on request (`--reread`), and it does not cover the slice any more"
    OVERWRITTEN = "another version of the object was read, and it is newer by its time or by what the landing zone says"
    NOT_CURRENT = "the landing zone says that another version of the object is current"
    DISAPPEARED = "neither a listing nor a HEAD request finds the object"
    SLICE_REPLACED = "the slice was replaced with the ticks of its registered rows"
    SLICE_EMPTIED = "the ticks of the slice were deleted, to be loaded again from what is there"
    SLICE_UNEQUAL = (
        "the table holds other ticks of the slice than the registry says, or than versions of the same trades in other slices leave it, "
        "and no object of the slice is gone"
    )


class _Same(Enum):
    SAME = "the same"


SAME = _Same.SAME  # the status does not change


class Transition(NamedTuple):
    """What a function of `landing/registry.py` does to rows in certain states.

    Attributes:
        event: what happened.
        function: that records it.
        before: the statuses of the rows that it changes; None stands for no row.
        after: the status afterwards; None if the row is deleted.
        loaded_before: whether the rows that it changes are loaded; None for either.
        loaded_after: whether the row is loaded afterwards; None for as before.
    """

    event: Event
    function: str
    before: tuple[Status | None, ...]
    after: Status | _Same | None
    loaded_before: bool | None = None
    loaded_after: bool | None = None


_NOTICED, _REGISTERED, _REJECTED, _SUPERSEDED, _GONE = Status
_ANY = (None, *Status)
_EXCEPT_SUPERSEDED = (_NOTICED, _REGISTERED, _REJECTED, _GONE)

TRANSITIONS = (
    Transition(Event.SEEN, "notice", (None, _SUPERSEDED, _GONE), _NOTICED),
    Transition(Event.WRITTEN_AGAIN, "notice", (_REJECTED,), _NOTICED),
    Transition(Event.READABLE, "register", _ANY, _REGISTERED),
    Transition(Event.UNREADABLE, "register", _ANY, _REJECTED),
    Transition(Event.NOT_COVERED, "register", (_NOTICED,), None, loaded_before=False),
    Transition(Event.NOT_COVERED, "register", (_NOTICED,), _SUPERSEDED, loaded_before=True),
    Transition(Event.NO_LONGER_COVERED, "register", (_REGISTERED, _REJECTED, _GONE), _SUPERSEDED),
    Transition(Event.OVERWRITTEN, "register", _EXCEPT_SUPERSEDED, _SUPERSEDED),
    Transition(Event.NOT_CURRENT, "supersede", _EXCEPT_SUPERSEDED, _SUPERSEDED),
    Transition(Event.DISAPPEARED, "mark_gone", (_NOTICED, _REGISTERED), _GONE),
    Transition(Event.DISAPPEARED, "mark_gone", (_REJECTED,), _GONE, loaded_before=True),
    Transition(Event.DISAPPEARED, "mark_gone", (_REJECTED,), _SUPERSEDED, loaded_before=False),
    Transition(Event.DISAPPEARED, "mark_gone", (_SUPERSEDED,), _GONE, loaded_before=True),
    Transition(Event.SLICE_REPLACED, "mark_loaded", (_REGISTERED,), SAME, loaded_after=True),
    Transition(
        Event.SLICE_REPLACED, "mark_loaded", (_NOTICED, _REJECTED, _SUPERSEDED, _GONE), SAME, loaded_before=True, loaded_after=False
    ),
    Transition(
        Event.SLICE_EMPTIED, "unload_slices", (_NOTICED, _REGISTERED, _REJECTED, _SUPERSEDED), SAME, loaded_before=True, loaded_after=False
    ),
    Transition(Event.SLICE_UNEQUAL, "withdraw_loaded", (_REGISTERED,), SAME, loaded_after=False),
)

STATES = tuple(State(status, loaded) for status, loaded in product(Status, (False, True)))


def _after(transition: Transition, before: State | None) -> State | None:
    """The state that a transition leads to from one of its states."""
    loaded = transition.loaded_after if transition.loaded_after is not None else before is not None and before.loaded
    if transition.after is None:
        return None
    if isinstance(transition.after, Status):
        return State(transition.after, loaded)
    assert before is not None
    return State(before.status, loaded)


def _starts_from(transition: Transition, state: State | None) -> bool:
    """Whether a transition changes rows in that state."""
    if state is None:
        return None in transition.before
    return state.status in transition.before and transition.loaded_before in (None, state.loaded)


NEXT_STATE = {
    (state, transition.event): _after(transition, state)
    for transition in TRANSITIONS
    for state in (None, *STATES)
    if _starts_from(transition, state)
}


def next_state(state: State | None, event: Event) -> State | None:
    """The state of a row after an event; None stands for no row."""
    return NEXT_STATE.get((state, event), state)


def transitions_table() -> str:
    """The transitions as a table in Markdown."""
    lines = ["| event | from | to | function |", "|---|---|---|---|"]
    for one in TRANSITIONS:
        before = "any" if one.before == _ANY else ", ".join(f"`{status}`" if status else "no row" for status in one.before)
        after = f"`{one.after}`" if isinstance(one.after, Status) else one.after.value if one.after else "no row"
        lines.append(f"| {one.event} | {before}{_loaded(one.loaded_before)} | {after}{_loaded(one.loaded_after)} | `{one.function}` |")
    return "\n".join(lines)


def _loaded(loaded: bool | None) -> str:
    return {None: "", True: ", loaded", False: ", not loaded"}[loaded]
