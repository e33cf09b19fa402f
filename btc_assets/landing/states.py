"""The states of the registry, and every transition between them.

A row of `landing.raw_blobs_5m` is one version of an object under one slice. Its state is two facts, which are kept apart on purpose:
its status says what the landing zone holds, and `loaded` says whether ticks of the table come from this version now.

`landing/registry.py` holds all statements that change either fact. The transitions below say what those statements do; a test runs
every statement from every state and compares. docs/architecture.md shows the same transitions.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import product
from typing import NamedTuple


class Status(StrEnum):
    """What the landing zone holds of a version, as far as the store knows."""

    NOTICED = "noticed"  # seen, and not read yet
    REGISTERED = "registered"  # there, and readable
    REJECTED = "rejected"  # there, and unreadable
    SUPERSEDED = "superseded"  # overwritten, or read again with another result
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
    """What happens to a row. A version has rows under several slices, and one happening can be different events for each of them."""

    SEEN = "a listing or an S3 event shows the version"
    WRITTEN_AGAIN = "a listing or an S3 event shows that the version was written again since it was rejected"
    READABLE = "the version was read, and it covers the slice"
    UNREADABLE = "the version was read, it is unreadable, and the slice is that of its folder"
    NOT_COVERED = "the version was read, and it does not cover the slice"
    NO_LONGER_COVERED = "the version was read again on request (`--reread`), and it does not cover the slice"
    OVERWRITTEN = "another version of the object was read, and it is not older"
    NOT_CURRENT = "the landing zone says that another version of the object is current"
    DISAPPEARED = "neither a listing nor a HEAD request finds the object"
    SLICE_REPLACED = "the slice was replaced with the ticks of its registered rows"
    SLICE_UNEQUAL = "the table holds other ticks of the slice than the registry says, and no object of the slice is gone"


class Transition(NamedTuple):
    """What a function of `landing/registry.py` does to rows in certain states.

    Attributes:
        event: what happened.
        function: that records it.
        before: the statuses of the rows that it changes; None stands for no row.
        status: of the row afterwards; None if the row is deleted.
        loaded_before: whether the rows that it changes are loaded; None for either.
        loaded: whether the row is loaded afterwards; None for as before.
    """

    event: Event
    function: str
    before: tuple[Status | None, ...]
    status: Status | None
    loaded_before: bool | None = None
    loaded: bool | None = None


_N, _R, _X, _S, _G = Status  # noticed, registered, rejected, superseded, gone

TRANSITIONS = (
    Transition(Event.SEEN, "notice", (None, _S, _G), _N),
    Transition(Event.WRITTEN_AGAIN, "notice", (_X,), _N),
    Transition(Event.READABLE, "register", (None, _N, _R, _X, _S, _G), _R),
    Transition(Event.UNREADABLE, "register", (None, _N, _R, _X, _S, _G), _X),
    Transition(Event.NOT_COVERED, "register", (_N,), None, loaded_before=False),
    Transition(Event.NOT_COVERED, "register", (_N,), _S, loaded_before=True),
    Transition(Event.NO_LONGER_COVERED, "register", (_N,), None, loaded_before=False),
    Transition(Event.NO_LONGER_COVERED, "register", (_N,), _S, loaded_before=True),
    Transition(Event.NO_LONGER_COVERED, "register", (_R, _X, _G), _S),
    Transition(Event.OVERWRITTEN, "register", (_N, _R, _X, _G), _S),
    Transition(Event.NOT_CURRENT, "supersede_others", (_N, _R, _X, _G), _S),
    Transition(Event.DISAPPEARED, "mark_gone", (_N, _R, _X), _G),
    Transition(Event.DISAPPEARED, "mark_gone", (_S,), _G, loaded_before=True),
    Transition(Event.SLICE_REPLACED, "mark_loaded", (_R,), _R, loaded=True),
    Transition(Event.SLICE_REPLACED, "mark_loaded", (_N,), _N, loaded_before=True, loaded=False),
    Transition(Event.SLICE_REPLACED, "mark_loaded", (_X,), _X, loaded_before=True, loaded=False),
    Transition(Event.SLICE_REPLACED, "mark_loaded", (_S,), _S, loaded_before=True, loaded=False),
    Transition(Event.SLICE_REPLACED, "mark_loaded", (_G,), _G, loaded_before=True, loaded=False),
    Transition(Event.SLICE_UNEQUAL, "withdraw_loaded", (_R,), _R, loaded=False),
)

STATES = tuple(State(status, loaded) for status, loaded in product(Status, (False, True)))


def _expand() -> dict[tuple[State | None, Event], State | None]:
    """The state after each event, for the states that it changes."""
    after: dict[tuple[State | None, Event], State | None] = {}
    for transition in TRANSITIONS:
        for status, loaded in product(transition.before, (False, True)):
            if transition.loaded_before not in (None, loaded) or (status is None and loaded):
                continue
            before = None if status is None else State(status, loaded)
            assert (before, transition.event) not in after
            kept = loaded if transition.loaded is None else transition.loaded
            after[before, transition.event] = None if transition.status is None else State(transition.status, kept)
    return after


_AFTER = _expand()


def next_state(state: State | None, event: Event) -> State | None:
    """The state of a row after an event; None stands for no row."""
    return _AFTER.get((state, event), state)


def transitions_table() -> str:
    """The transitions as a table in Markdown."""
    lines = ["| event | from | to | `loaded_at` | function |", "|---|---|---|---|---|"]
    for one in TRANSITIONS:
        before = ", ".join(f"`{status}`" if status else "–" for status in one.before)
        if one.loaded_before is not None:
            before += " and loaded" if one.loaded_before else " and not loaded"
        after = f"`{one.status}`" if one.status else "deleted"
        loaded = {None: "", True: "set", False: "cleared"}[one.loaded]
        lines.append(f"| {one.event} | {before} | {after} | {loaded} | [`{one.function}`](../btc_assets/landing/registry.py) |")
    return "\n".join(lines)
