"""The table of transitions is complete, unambiguous, shown in the documentation, and agrees with the SQL functions."""

from __future__ import annotations

import re

from btc_assets.landing import registry
from btc_assets.landing.states import (
    NEXT_STATE,
    SOURCE_GONE,
    STATES,
    TRANSITIONS,
    UNSETTLED,
    State,
    Status,
    transitions_table,
)
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest


def test_every_state_can_be_reached_and_left() -> None:
    reached: set[State | None] = {None}
    while new := {after for (before, _), after in NEXT_STATE.items() if before in reached} - reached:
        reached |= new
    assert reached == {None, *STATES}
    for state in (None, *STATES):
        assert any(before == state != after for (before, _), after in NEXT_STATE.items())


def test_an_event_changes_a_state_in_one_way() -> None:
    for (state, event), after in NEXT_STATE.items():
        leading = [one for one in TRANSITIONS if one.event is event and state and state.status in one.before]
        assert len([one for one in leading if one.loaded_before in (None, state and state.loaded)]) <= 1, (state, event, after)


def test_each_transition_names_a_function_of_the_registry() -> None:
    assert all(callable(getattr(registry, transition.function)) for transition in TRANSITIONS)


def test_the_architecture_shows_the_table() -> None:
    page = (PROJECT / "docs" / "architecture.md").read_text()
    assert transitions_table() in page, "replace the table there by what transitions_table() returns"


def test_the_sql_functions_know_the_same_states(store: StoreUnderTest) -> None:
    question = (
        "SELECT landing.is_unsettled(%(status)s, loaded_at), landing.is_source_gone(%(status)s, loaded_at) "
        "FROM (SELECT CASE WHEN %(loaded)s THEN now() END) AS row (loaded_at)"
    )
    for state in STATES:
        ((unsettled, gone),) = store.connection.execute(question, {"status": state.status, "loaded": state.loaded}).fetchall()
        assert (unsettled, gone) == (state in UNSETTLED, state == SOURCE_GONE), state


def test_no_other_module_spells_a_status_in_sql() -> None:
    spelled = re.compile("'(" + "|".join(status.value for status in Status) + ")'")
    elsewhere = {path.name for path in (PROJECT / "btc_assets").rglob("*.py") if spelled.search(path.read_text())}
    assert elsewhere == {"registry.py"}
