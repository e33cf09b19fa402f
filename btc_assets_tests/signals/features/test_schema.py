"""The feature schema changes with everything that an encoder depends on."""

from __future__ import annotations

import pytest

from btc_assets.signals.features import schema
from btc_assets.signals.features.bars import CHANNELS, Channel


def test_the_schema_changes_with_names_order_and_units_and_not_with_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {schema.digest()}
    first, second, *others = CHANNELS
    for changed in (
        (second, first, *others),
        (Channel("other", first.unit, ""), second, *others),
        (Channel(first.name, "bps", ""), second, *others),
        (first, second),
    ):
        monkeypatch.setattr(schema, "CHANNELS", changed)
        digests.add(schema.digest())
    assert len(digests) == 5
    monkeypatch.setattr(schema, "CHANNELS", (Channel(first.name, first.unit, "in other words"), second, *others))
    assert schema.digest() in digests
    assert {len(digest) for digest in digests} == {12}
