"""Data sets as a researcher makes them: split without a leak, and read by whatever takes Arrow, or by PyTorch."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from torch.utils.data import DataLoader

import btc_assets as btc
from btc_assets.domain.errors import UserError
from btc_assets.domain.slices import SLICE, SLICE_US
from btc_assets.domain.ticks import int64
from btc_assets.market_data.slice_records import describe_slices, record_slices
from btc_assets.signals.features.compute import SliceFeatures
from btc_assets.signals.features.formulas import FEATURES
from btc_assets.signals.features.table import TABLE
from btc_assets.store.database import Store
from btc_assets.store.tables import Target
from btc_assets.store.writers import replace_all
from btc_assets_tests.support.databases import write_candles, write_ticks
from btc_assets_tests.support.stored_slices import DAY_START, FULL_DAY
from btc_assets_tests.support.stores import temporary_copy

TRAIN, TEST = ("2024-01-10", "2024-01-10T16:00"), ("2024-01-10T16:00", "2024-01-11")
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def day(server_dsn: str, template: str, market_day: pa.Table) -> Iterator[str]:
    """A store with a day of ticks, of which one is missing, with features and candles; nobody writes to it."""
    lost = market_day.filter(pc.not_equal(market_day["trade_id"], market_day["trade_id"][500]))
    with temporary_copy(server_dsn, template) as dsn, psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        write_ticks(connection, lost, FULL_DAY)
        replace_all(connection, Target.of(connection, TABLE), SliceFeatures(Store(dsn), FULL_DAY, ["BTCUSDT"]))
        write_candles(connection, FULL_DAY)
        with connection.transaction(), connection.cursor() as cursor:
            record_slices(cursor, FULL_DAY, describe_slices(lost))
        yield dsn


@pytest.fixture(scope="module")
def store(day: str) -> btc.ClientStore:
    return btc.connect(day, latency=timedelta(seconds=90))


def test_by_default_all_features_and_the_return_of_five_minutes(store: btc.ClientStore) -> None:
    data = store.dataset("BTCUSDT", train=TRAIN, test=TEST)
    train, test = data.train.arrow(), data.test.arrow()
    assert train.schema == test.schema == data.train.schema
    names = [feature.name for feature in FEATURES]
    assert train.column_names == ["bucket_5m", "symbol", "available_at", *names, "target_start", "target_end", "target", "state"]
    # The target of the last row that trains ends an hour before the test begins, and two slices and a half are no targets of the day.
    assert train["bucket_5m"][-1].as_py() == DAY_START + 14 * HOUR + 45 * timedelta(minutes=1)
    assert test["bucket_5m"][-1].as_py() == DAY_START + 23 * HOUR + 45 * timedelta(minutes=1)
    assert pc.max(train["target_end"]).as_py() + HOUR <= DAY_START + 16 * HOUR
    assert set(train["state"].to_pylist()) == {"complete"} and len(test) == 94
    assert (
        repr(data)
        == "<data set of BTCUSDT: 48 features, train 2024-01-10T00:00Z to 2024-01-10T16:00Z, test 2024-01-10T16:00Z to 2024-01-11T00:00Z>"
    )
    assert repr(data.test).startswith("<test rows of BTCUSDT, 2024-01-10T16:00Z to 2024-01-11T00:00Z: bucket_5m, symbol, ")


def test_what_is_left_out_is_counted_and_can_be_kept_with_its_reason(store: btc.ClientStore) -> None:
    data = store.dataset("BTCUSDT", ["volume"], train=TRAIN, test=TEST, incomplete="mask")
    counted = data.count()
    assert counted == {
        "train": {"complete": 175, "gap": 1, "purged": 14, "target: gap": 2},
        "test": {"complete": 94, "target: no trades": 2},
    }
    masked = data.train.arrow()
    assert len(masked) == sum(counted["train"].values()) - counted["train"]["purged"]
    dropped = store.dataset("BTCUSDT", ["volume"], train=TRAIN, test=TEST).train.arrow()
    assert dropped.equals(masked.filter(pc.equal(masked["state"], "complete")))
    assert len(dropped) == counted["train"]["complete"]
    unknown = {row["state"]: (row["volume"] is None, row["target"] is None) for row in masked.to_pylist()}
    assert unknown == {"complete": (False, False), "gap": (True, False), "target: gap": (False, True)}


def test_every_way_out_gives_the_same_rows(store: btc.ClientStore, tmp_path: Path) -> None:
    rows = store.dataset("BTCUSDT", ["volume", "vpin"], bars=["close", "volume"], target="volatility", horizon="1h", train=TRAIN).train
    table = rows.arrow()
    assert rows.to_parquet(tmp_path / "train.parquet") == len(table) == pq.read_table(tmp_path / "train.parquet").num_rows
    assert rows.polars()["vpin"].to_list() == rows.pandas()["vpin"].tolist() == table["vpin"].to_pylist()
    arrays = rows.numpy()
    assert arrays["bars"].shape == (len(table), 60, 2) and arrays["bars"].dtype == np.float32
    assert arrays["bars"].tolist() == table["bars"].to_pylist()


def test_bars_alone_and_one_name_alone_are_taken(store: btc.ClientStore) -> None:
    alone = store.dataset("BTCUSDT", [], bars="close", train=TRAIN, test=TEST).train.arrow()
    beside = store.dataset("BTCUSDT", "volume", bars=["close"], train=TRAIN, test=TEST).train.arrow()
    assert alone.equals(beside.drop_columns(["volume"]))
    with pytest.raises(UserError, match="There is no channel of bars 5: name some of"):
        store.dataset("BTCUSDT", [], bars=5, train=TRAIN, test=TEST)  # type: ignore[arg-type]


def test_a_loader_with_workers_reads_each_row_once(store: btc.ClientStore) -> None:
    rows = store.dataset("BTCUSDT", ["volume", "vpin"], bars=["close"], train=TRAIN, test=TEST).train
    expected = rows.arrow()
    for loader in (DataLoader(rows.torch(), batch_size=16, num_workers=2), DataLoader(rows.torch(batch_size=16), batch_size=None)):
        batches = list(loader)
        order = np.argsort(np.concatenate([batch["bucket_5m"] for batch in batches]))
        joined = {name: np.concatenate([batch[name] for batch in batches])[order] for name in batches[0]}
        assert joined["bucket_5m"].tolist() == int64(expected["bucket_5m"]).tolist()
        assert not (np.diff(order) == 1).all()
        assert joined["features"][:, 1] == pytest.approx(expected["vpin"].to_numpy(), rel=1e-6)
        assert joined["bars"].shape == (len(expected), 60, 1)
        assert joined["target"] == pytest.approx(expected["target"].to_numpy(), rel=1e-6)


def test_workers_that_are_started_anew_may_have_the_rows(store: btc.ClientStore) -> None:
    rows = store.dataset("BTCUSDT", ["volume"], train=TRAIN, test=TEST).train.torch(batch_size=64)
    copied = pickle.loads(pickle.dumps(rows))
    assert [batch["bucket_5m"].tolist() for batch in copied] == [batch["bucket_5m"].tolist() for batch in rows]


def test_rows_with_nulls_are_not_handed_to_pytorch(store: btc.ClientStore) -> None:
    masked, dropped = (store.dataset("BTCUSDT", ["volume"], train=TRAIN, incomplete=incomplete).train for incomplete in ("mask", "drop"))
    assert len(masked.arrow()) > len(dropped.arrow())
    assert sum(1 for _ in masked.torch()) == len(dropped.arrow())


def test_columns_and_targets_of_a_users_own(store: btc.ClientStore) -> None:
    data = store.dataset("BTCUSDT", ["volume"], train=TRAIN, test=TEST)
    train = data.train.arrow()
    mine = pa.table({"bucket_5m": train["bucket_5m"], "available_at": train["available_at"], "mine": np.arange(len(train))}).slice(20)
    joined = data.with_features(mine)
    assert joined.train.arrow()["mine"].to_pylist() == list(range(20, len(train)))
    assert joined.count()["train"]["own columns missing"] >= 20
    assert joined.train.torch().state_dict()["of"] != data.train.torch().state_dict()["of"]
    own = pa.table(
        {"bucket_5m": train["bucket_5m"], "target": np.ones(len(train)), "target_end": pc.add(train["available_at"], pa.scalar(4 * HOUR))}
    )
    purged = data.with_target(own).train.arrow()
    assert pc.max(purged["target_end"]).as_py() <= DAY_START + 15 * HOUR
    assert set(purged["target"].to_pylist()) == {1.0}


def test_a_feature_that_was_known_later_is_refused(store: btc.ClientStore) -> None:
    data = store.dataset("BTCUSDT", ["volume"], train=TRAIN)
    train = data.train.arrow()
    late = pc.add(train["available_at"], pa.scalar(timedelta(seconds=1)))
    with pytest.raises(
        UserError, match=r"^\d+ rows of the table were known later than their slices, first that of 2024-01-10T00:00Z: a feature"
    ):
        data.with_features(pa.table({"bucket_5m": train["bucket_5m"], "available_at": late, "mine": train["volume"]}))
    early = pa.table({"bucket_5m": train["bucket_5m"], "target": train["volume"], "target_start": train["bucket_5m"], "target_end": late})
    with pytest.raises(UserError, match=r"^The target of 2024-01-10T00:00Z begins before its slice is known"):
        data.with_target(early)


def test_planted_leaks_raise_the_alarm_and_honest_rows_do_not(store: btc.ClientStore) -> None:
    data = store.dataset("BTCUSDT", ["log_return", "volume", "vpin"], train=TRAIN, test=TEST)
    assert data.check_leaks() == []
    rows = pa.concat_tables([data.train.arrow(), data.test.arrow()]).sort_by("bucket_5m")
    planted = data.with_features(pa.table({"bucket_5m": rows["bucket_5m"], "mine": rows["target"]}))
    assert any(alarm.startswith("mine: the AUC of the sign of the target is ") for alarm in planted.check_leaks())
    with pytest.raises(UserError, match="give a longer range"):
        data.check_leaks(slices=30)
    with pytest.raises(UserError, match="no columns to judge but bars"):
        store.dataset("BTCUSDT", [], bars=True, train=TRAIN).check_leaks()


def test_walking_forward(store: btc.ClientStore) -> None:
    folds = store.dataset("BTCUSDT", ["volume"], train=TRAIN, test=TEST).walk_forward(4)
    tested = pa.concat_tables([fold.test.arrow() for fold in folds])
    assert tested.equals(store.dataset("BTCUSDT", ["volume"], train=TRAIN, test=TEST).test.arrow())
    for fold in folds:
        assert pc.max(fold.train.arrow()["target_end"]).as_py() + HOUR <= fold.test.arrow()["bucket_5m"][0].as_py()


def test_training_on_both_sides_of_a_test(store: btc.ClientStore) -> None:
    test = ("2024-01-10T08:00", "2024-01-10T10:00")
    for train in ("2024-01-10", [("2024-01-10", "2024-01-10T09:00"), ("2024-01-10T09:00", "2024-01-11")]):
        rows = store.dataset("BTCUSDT", ["volume"], train=train, test=test, purge="30m", embargo="2h").train.arrow()
        gap = np.flatnonzero(np.diff(int64(rows["bucket_5m"])) > 20 * SLICE_US)
        assert len(gap) == 1
        assert rows["target_end"][int(gap[0])].as_py() <= DAY_START + 7.5 * HOUR
        assert rows["bucket_5m"][int(gap[0]) + 1].as_py() == DAY_START + 12 * HOUR + 10 * timedelta(minutes=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": ["spread"]}, "There is no feature 'spread': name some of "),
        ({"target": "price"}, "There is no target 'price': name one of return, direction, volatility"),
        ({"horizon": "90 minutes"}, "The horizon '90 minutes' is no span of time: write 90s, 5m, 1h or 7d, or pass a timedelta."),
        ({"incomplete": "fill"}, 'incomplete=\'fill\' is unknown: write incomplete="drop" or incomplete="mask".'),
        ({"train": []}, "A list of ranges is empty: name at least one."),
        ({"train": ("2024-01-11", "2024-01-10")}, "The range from 2024-01-11 to 2024-01-10 is reversed"),
    ],
)
def test_what_does_not_fit_is_one_sentence(store: btc.ClientStore, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as raised:
        store.dataset("BTCUSDT", **{"train": TRAIN, **arguments})  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)


def test_what_is_not_there_is_said(store: btc.ClientStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="There is no symbol 'ETHUSDT' in this store: name one of BTCUSDT"):
        store.dataset("ETHUSDT", train=TRAIN)
    data = store.dataset("BTCUSDT", train=TRAIN)
    with pytest.raises(UserError, match=r"^This data set has no rows to test on"):
        _ = data.test
    with pytest.raises(UserError, match="do not fit: shuffle 0 or more rows"):
        data.train.torch(rank=2, world_size=2)
    monkeypatch.setattr("btc_assets.client.datasets.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^PyTorch is not installed: pip install 'btc-assets\[torch\]'\.$"):
        data.train.torch()


def test_pytorch_is_imported_by_torch_alone(day: str) -> None:
    code = (
        "import sys, btc_assets as btc; "
        f"rows = btc.connect({day!r}).dataset('BTCUSDT', ['volume'], train='2024-01-10').train; "
        "assert len(rows.arrow()) > 250; assert 'torch' not in sys.modules; rows.torch(); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_versions(store: btc.ClientStore) -> None:
    whole = store.version("BTCUSDT", "2024-01-10")
    assert whole.startswith("records1:") and whole == store.version("BTCUSDT", ("2024-01-09", "2024-01-12"))
    assert whole != store.version("BTCUSDT", TRAIN)
    assert store.version("BTCUSDT", (DAY_START, DAY_START + SLICE)) == store.version(
        "BTCUSDT", (DAY_START, DAY_START + timedelta(seconds=1))
    )
    assert store.version("BTCUSDT", "2024-01-10", every_value=True).startswith("ticks1:")
    with pytest.raises(UserError, match="There is no symbol"):
        store.version("ETHUSDT", "2024-01-10")
