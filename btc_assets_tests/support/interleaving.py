"""Every interleaving of sessions: each statement waits for its turn, and all orders of the turns are tried, one after the other.

A session that waits for a lock of another one is found by asking the server who blocks it, never by a timeout.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from btc_assets.store.database import Store

Work = Callable[[Store], None]


class Session:
    """What one session does, in a thread of its own, statement by statement.

    Args:
        dsn: of the store.
        work: what it does with the store.
        stops: whether a statement waits for its turn; COMMIT always does.
    """

    def __init__(self, dsn: str, work: Work, stops: Callable[[str], bool]) -> None:
        self._store = _SteppedStore(dsn, self)
        self._work, self._stops = work, stops
        self.error: BaseException | None = None
        self.pids: list[int] = []
        self._turn, self._changed = threading.Semaphore(0), threading.Condition()
        self.waits_for_turn = self.ended = False
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def step(self) -> None:
        """Let it go on until its next stop."""
        with self._changed:
            self.waits_for_turn = False
        self._turn.release()

    def rests(self, seconds: float) -> bool:
        """Whether it waits for its turn or has ended, or does so within some time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.waits_for_turn or self.ended, seconds)

    def reach(self, statement: str) -> None:
        """Called in its own thread before a statement."""
        if not self._stops(statement):
            return
        with self._changed:
            self.waits_for_turn = True
            self._changed.notify_all()
        self._turn.acquire()

    def _run(self) -> None:
        try:
            self._work(self._store)
        except BaseException as error:
            self.error = error
        with self._changed:
            self.ended = True
            self._changed.notify_all()


class _SteppedStore(Store):
    def __init__(self, dsn: str, session: Session) -> None:
        super().__init__(dsn)
        self._session = session

    def connect(self, *, owner: bool = False) -> psycopg.Connection:
        session = self._session

        class SteppedCursor(psycopg.Cursor[Any]):
            def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
                session.reach(query if isinstance(query, str) else query.as_string(None))
                return super().execute(query, *arguments, **options)

        class SteppedConnection(psycopg.Connection[Any]):
            @contextmanager
            def transaction(self, *arguments: Any, **options: Any) -> Iterator[psycopg.Transaction]:
                with super().transaction(*arguments, **options) as transaction:
                    yield transaction
                    session.reach("COMMIT")

        connection = SteppedConnection.connect(self.dsn, autocommit=True, options="-c timezone=UTC", cursor_factory=SteppedCursor)
        session.pids.append(connection.info.backend_pid)
        return connection


def run_schedule(monitor: psycopg.Connection, sessions: Sequence[Session], choices: Sequence[int]) -> list[list[int]]:
    """Run sessions to their ends, in the order of `choices`, then always the first that can go on.

    Returns:
        For each turn, the sessions that could have had it, the one that had it first.
    """
    for session in sessions:
        session.start()
        _settle(monitor, session)
    turns: list[list[int]] = []
    while not all(session.ended for session in sessions):
        free = [number for number, session in enumerate(sessions) if session.waits_for_turn and not session.ended]
        assert free, "all sessions wait for each other"
        wanted = choices[len(turns)] if len(turns) < len(choices) else free[0]
        chosen = wanted if wanted in free else free[0]
        turns.append([chosen, *(number for number in free if number != chosen)])
        sessions[chosen].step()
        for session in sessions:
            _settle(monitor, session)
    return turns


def _settle(monitor: psycopg.Connection, session: Session) -> None:
    """Wait until a session has come to its next stop, has ended, or waits for a lock."""
    while not session.rests(0.002):
        blocked = monitor.execute(
            "SELECT 1 FROM unnest(%s::int[]) AS pid WHERE cardinality(pg_blocking_pids(pid)) > 0", (session.pids,)
        ).rowcount
        if blocked:
            return


def schedules_with_switches(run: Callable[[Sequence[int]], list[list[int]]], switches: int) -> int:
    """Call `run` with the choices of each schedule in which the turn passes from one of two sessions to the other a few times only.

    Returns:
        How many schedules there were. With one switch, each session runs to its end at each stop of the other one.
    """
    seen = set[tuple[int, ...]]()
    for first in (0, 1):
        lengths = [0] * switches
        while True:
            choices = [number for turn, length in enumerate(lengths) for number in [(first + turn) % 2] * length]
            choices += [(first + switches) % 2] * _MOST_TURNS
            turns = tuple(turn[0] for turn in run(choices))
            grown = turns not in seen
            seen.add(turns)
            # Count up like a number, of which a digit is as high as its session has turns.
            position = switches - 1
            while position >= 0 and (not grown or lengths[position] >= _MOST_TURNS):
                lengths[position] = 0
                position -= 1
                grown = True
            if position < 0:
                break
            lengths[position] += 1
    return len(seen)


_MOST_TURNS = 1_000


def all_schedules(run: Callable[[Sequence[int]], list[list[int]]], most: int | None = None) -> int:
    """Call `run` with the choices of every schedule; returns how many there were.

    Args:
        run: runs one schedule, and returns its turns.
        most: stop after so many.
    """
    count, choices = 0, list[int]()
    while True:
        turns = run(choices)
        count += 1
        tried = [turn[0] for turn in turns]
        # The last turn that somebody else could have had: sessions have numbers, and a turn goes to each of them in ascending order.
        for position in reversed(range(len(turns))):
            later = sorted(number for number in turns[position] if number > tried[position])
            if later:
                choices = [*tried[:position], later[0]]
                break
        else:
            return count
        if count == most:
            return count
