"""Features, bars and vectors come as arrays, never as text, and say when they can have been known."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

import btc_assets as btc
from btc_assets.client.features import BARS_SCHEMA, SCHEMA
from btc_assets.client.ranges import parse_range
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.table import read_features
from btc_assets.signals.search.similar import find_similar_slices
from btc_assets.store.database import Store, connect
from btc_assets_tests.client.conftest import DIM, FUTURE, MODEL, OTHER_MODEL, SPOT, VECTORS, Market
from btc_assets_tests.support.trades import NOON

DAY = "2024-01-10"
LATENCY = timedelta(seconds=90)


def test_features_and_bars_are_what_is_stored(client: btc.ClientStore, market: Market) -> None:
    stored = read_features(Store(market.dsn), SPOT, parse_range(DAY).window)
    found = client.features(SPOT, DAY, [*(one.name for one in FEATURES), "bars"]).numpy()
    assert np.array_equal(np.column_stack([found[one.name] for one in FEATURES]), stored.features)
    assert found["bars"].dtype == np.float32 and np.array_equal(found["bars"], stored.bars)


def test_features_come_without_bars_unless_they_are_asked_for(client: btc.ClientStore) -> None:
    found = client.features(SPOT, DAY)
    assert found.columns == [name for name in SCHEMA.names if name != "bars"]
    rows = found.arrow().to_pylist()
    assert len(rows) == 17 and {row["available_at"] - row["bucket_5m"] for row in rows} == {SLICE + LATENCY}
    first = client.features(SPOT, (NOON + timedelta(minutes=2), NOON + timedelta(minutes=10)), ["bucket_5m"]).arrow()
    assert first["bucket_5m"].to_pylist() == [NOON + SLICE]  # the slices that start in the range
    assert client.features(SPOT, DAY, ["volume"]).head(2).to_pylist() == [{"volume": row["volume"]} for row in rows[:2]]


def test_bars_of_slices_are_the_rows_of_the_view(client: btc.ClientStore, market: Market) -> None:
    found = client.slice_bars(SPOT, DAY)
    assert found.schema == BARS_SCHEMA
    table = found.arrow()
    with connect(market.dsn) as connection:
        view = connection.execute("SELECT * FROM signals.slice_bars WHERE symbol = %s ORDER BY bucket_5m, bar", (SPOT,)).fetchall()
    assert [tuple(row.values())[:3] for row in table.to_pylist()] == [row[:3] for row in view]
    for place, name in enumerate(BARS_SCHEMA.names[3:-1], 3):
        assert table[name].to_pylist() == [float(np.float32(row[place])) for row in view]
    assert client.slice_bars(SPOT, DAY, ["bar", "volume"]).head(3).to_pylist() == table.select(["bar", "volume"]).slice(0, 3).to_pylist()


def test_features_that_another_version_computed_are_refused(
    market: Market, client: btc.ClientStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("btc_assets.signals.features.schema.digest", lambda: "ffffffffffff")
    with pytest.raises(UserError, match=r"^Another version of btc_assets computed features of BTCUSDT in 2024-01-10 to 2024-01-11 \("):
        client.features(SPOT, DAY).arrow()


def test_vectors_are_arrays_and_null_where_there_is_none(client: btc.ClientStore) -> None:
    found = client.embeddings()
    rows = found.arrow()
    assert rows["embedding"].to_pylist()[2] is None and rows["embedding"].null_count == 1
    assert np.array_equal(np.delete(found.numpy()["embedding"], 2, axis=0), np.delete(VECTORS, 2, axis=0))
    assert found.polars()["embedding"].to_list()[2] is None and found.polars()["embedding"].dtype.shape == (DIM,)  # type: ignore[attr-defined]
    assert {row["available_at"] - row["bucket_5m"] for row in rows.to_pylist()} == {SLICE + LATENCY}
    assert repr(found).startswith(
        f"<embeddings of BTCUSDT by {MODEL}, all: bucket_5m, symbol, model_id, embedding, tick_count, next_return,"
    )
    assert client.embeddings((NOON, NOON + SLICE)).arrow()["bucket_5m"].to_pylist() == [NOON]
    other = client.embeddings(model=OTHER_MODEL).numpy()["embedding"]
    assert other.shape == (18, 3) and np.allclose(np.linalg.norm(other, axis=1), 1)


def test_similar_slices_are_those_of_the_search(client: btc.ClientStore, market: Market) -> None:
    with connect(market.dsn) as connection:
        expected = find_similar_slices(connection, NOON, 5, before_only=True, apart=timedelta(minutes=10))
    found = client.similar(NOON + timedelta(minutes=3), 5, before_only=True, apart=timedelta(minutes=10))
    rows = found.arrow().to_pylist()
    assert [(row["bucket_5m"], row["distance"], row["tick_count"]) for row in rows] == [
        (one.bucket_5m, one.distance, one.tick_count) for one in expected
    ]
    assert rows[0]["next_return"] is None and rows[0]["available_at"] == rows[0]["bucket_5m"] + SLICE + LATENCY
    within = client.similar(NOON, 18, within=(NOON, NOON + 3 * SLICE), exact=True).arrow()["bucket_5m"].to_pylist()
    assert sorted(within) == [NOON + SLICE, NOON + 2 * SLICE]
    assert client.similar("2024-01-10T12:00", 2, model=OTHER_MODEL).arrow().num_rows == 2


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda client: client.features(SPOT, DAY, ["rsi"]), "There is no column 'rsi' in features: name some of bucket_5m, symbol, trade_count,"),
        (lambda client: client.slice_bars("X", DAY), "There is no symbol 'X' in this store: name one of BTCUSDT, BTCUSDT.P."),
        (lambda client: client.embeddings(model="x"), f"There is no model 'x' in this store: name one of {OTHER_MODEL}, {MODEL}."),
        (lambda client: client.similar(NOON, model="x"), f"There is no model 'x' in this store: name one of {OTHER_MODEL}, {MODEL}."),
        (lambda client: client.embeddings(symbol=FUTURE), "No model is active for BTCUSDT.P: train one (btc-assets train) and"),
        (lambda client: client.embeddings(symbol=FUTURE, model=MODEL), f"The model {MODEL} embeds BTCUSDT, not BTCUSDT.P: leave out one of both."),
        (lambda client: client.similar("noon"), "'noon' is not a date or time: write it as"),
        (lambda client: client.similar(NOON + SLICE * 100).arrow(), "2024-01-10"),
        (lambda client: client.similar(NOON, 0).arrow(), "The number of neighbours is 0: ask for one or more."),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence(client: btc.ClientStore, ask: object, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        ask(client)  # type: ignore[operator]
    assert sentence in str(raised.value) and str(raised.value).endswith(".") and "\n" not in str(raised.value)
