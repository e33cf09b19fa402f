"""The policies of a store, as they are declared."""

from __future__ import annotations

from datetime import timedelta

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import Settings
from btc_assets.market_data import candles
from btc_assets.ops.policies import TICKS, Compress, Drop, Keep, Refresh, declared_policies
from btc_assets_tests.support.policies import DECLARED


def test_what_is_declared() -> None:
    by_kind: dict[str, list[str]] = {}
    for policy in DECLARED:
        by_kind.setdefault(policy.kind, []).append(policy.table)
    partials = [f"market_data.candle_partials_{interval}" for interval in candles.INTERVALS]
    assert by_kind == {
        "compress": [TICKS], "drop": [TICKS], "refresh": partials, "keep": [*partials, "signals.slice_features", "signals.btc_embeddings", "landing.raw_blobs_5m"],
    }  # fmt: skip
    assert DECLARED[:2] == (
        Compress(TICKS, after=timedelta(days=7), segment_by=("symbol",), order_by=("bucket_5m", "trade_id")),
        Drop(TICKS, after=timedelta(days=90)),
    )


def test_ticks_can_be_kept_forever() -> None:
    kinds = {policy.kind for policy in declared_policies(Settings(ticks_drop_after_days="never")) if policy.table == TICKS}
    assert kinds == {"compress", "keep"}


def test_ticks_whose_candles_a_policy_still_rebuilds_cannot_be_dropped() -> None:
    with pytest.raises(UserError) as raised:
        declared_policies(Settings(ticks_drop_after_days=7))
    assert str(raised.value) == (
        "BTC_ASSETS_TICKS_DROP_AFTER_DAYS=7 would drop ticks whose candles a policy still rebuilds: set 8 or more."
    )


def test_each_kind_names_its_job_after_itself() -> None:
    names = [policy.job_name for policy in (Compress("a.b"), Drop("a.b"), Refresh("a.b"), Keep("a.b"))]
    assert names == ["compress a.b", "drop a.b", "refresh a.b", "keep a.b"]
