"""A trial: one object is decoded in a process that may end of it. `python -m btc_assets.landing.trial FILE PREFIX=SYMBOL:LABEL...`"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from btc_assets.domain.feeds import Feeds
from btc_assets.landing.decode import decode
from btc_assets.landing.formats import read_object


def main(path: Path, feeds: Feeds) -> None:
    """Decode the object; whether it is rejected does not matter here."""
    with suppress(Exception):
        for raw in read_object(path).tables:
            decode(raw, feeds)
    os._exit(0)  # nothing is to be cleaned up, and threads may still be reading


if __name__ == "__main__":
    main(Path(sys.argv[1]), Feeds.parse(",".join(sys.argv[2:])))
