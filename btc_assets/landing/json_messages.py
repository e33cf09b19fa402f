"""Which JSON messages are trades. A recording of a connection holds whatever the exchange sent on it."""

from __future__ import annotations

from collections.abc import Mapping

from btc_assets.landing.json_values import LISTS, Broken, Record
from btc_assets.landing.raw import ObjectRejected

# Messages without an event type, by keys that trades do not have.
_KINDS = (
    ("depth", {"lastUpdateId"}),
    ("bookTicker", {"u", "s", "b", "B", "a", "A"}),
    ("aggTrade", {"a", "p", "q", "f", "l", "T"}),
    ("error", {"error"}),
    ("error", {"code", "msg"}),
    ("ping", {"ping"}),
    ("pong", {"pong"}),
    ("request", {"method", "params"}),
)
_ANSWER = {"result", "id", "status", "rateLimits"}  # the keys of an answer to a subscription
_SILENT = {"answer", "ping", "pong", "request"}  # what a connection without trades holds as well
_ORDERS = {"executionReport", "ORDER_TRADE_UPDATE", "TRADE_LITE"}  # messages that have the fields of a trade, of an account's own


def trade_or_kind(record: Record) -> Record | str | Broken | None:
    """The trade of a message, which may be wrapped as `{"stream": ..., "data": {...}}`, or the kind of message that it is.

    Returns:
        A record, the name of another kind, what is neither, or None for the answer to a request, whose list holds the messages.
    """
    data = record.get("data")
    message: Record = data if isinstance(data, dict) else record
    event = message.get("e")
    if event == "trade":
        return message
    if event is not None:
        return _other_event(message, str(event))
    kind = _stream_kind(record) if message is not record else None
    kind = kind or _kind_by_keys(message)
    if kind is None and any(isinstance(message.get(name), list) for name in LISTS):
        return None
    return message if kind is None else kind


def _other_event(message: Record, event: str) -> str | Broken:
    looks_like_a_trade = {"trade_id", "t"} & message.keys() and {"price", "p"} & message.keys() and event not in _ORDERS
    if looks_like_a_trade and event != "aggTrade":
        return Broken(str(message), f"the row calls itself {event:.40}, which is no trade")
    return event


def _stream_kind(record: Record) -> str | None:
    """The kind that the name of a stream tells: bookTicker in btcusdt@bookTicker; None for trades."""
    kind = str(record.get("stream", "")).partition("@")[2].partition("@")[0]
    return None if kind in ("", "trade") else kind


def _kind_by_keys(message: Record) -> str | None:
    keys = message.keys()
    if {"t", "trade_id"} & keys:
        return None
    if "result" in keys and keys <= _ANSWER and not isinstance(message["result"], dict | list):
        return "answer"
    return next((kind for kind, some in _KINDS if some <= keys), None)


def refuse_only_others(counts: Mapping[str, int]) -> None:
    """Refuse an object that holds messages, but none that is or may be a trade.

    Raises:
        ObjectRejected: naming the kinds of messages, unless they are those of a connection on which nothing was traded.
    """
    told = {kind: count for kind, count in counts.items() if kind not in _SILENT}
    if not told:
        return
    if "aggTrade" in told:
        raise ObjectRejected(
            f"it holds aggregate trades ({told['aggTrade']} messages aggTrade), which join several trades: land the stream trade"
        )
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(told.items())[:5])
    raise ObjectRejected(f"it holds no trades, only messages of other kinds ({kinds}): land the stream trade")
