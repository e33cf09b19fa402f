"""The set of features and channels as one short name: an encoder accepts only the set that it was trained on."""

from __future__ import annotations

import hashlib
import json

from btc_assets.signals.features.bars import CHANNELS, STEPS
from btc_assets.signals.features.formulas import FEATURES


def digest() -> str:
    """12 hex digits that change with the names, the order or the units of features or channels, or the number of bars."""
    schema = [[[one.name, one.unit] for one in many] for many in (FEATURES, CHANNELS)]
    return hashlib.sha256(json.dumps([STEPS, *schema]).encode()).hexdigest()[:12]
