"""Text from outside is shown as it is, on one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from btc_assets.domain.printable import escape_markdown, markdown_table, printable, unescape_markdown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("price [usdt].csv", "price [usdt].csv"),
        ("Zürich 東京 ₿", "Zürich 東京 ₿"),
        ("a\nERROR forged", r"a\nERROR forged"),
        ("\x1b[2J\x1b[31mred\x07\x9b1m", r"\x1b[2J\x1b[31mred\x07\x9b1m"),
        ("a\u202egpj.exe", r"a\u202egpj.exe"),
        ("m\udce9tro", r"m\udce9tro"),
        ("tab\tdel\x7f\r", r"tab\tdel\x7f\r"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("file:///tmp/raw_blobs_5m/a b.csv", "file:///tmp/raw_blobs_5m/a b.csv"),
        ("![x](http://evil) <img src=x>", r"!\[x\](http://evil) \<img src=x\>"),
        ("*bold* _soft_ `code` ~~gone~~", r"\*bold\* \_soft\_ \`code\` \~\~gone\~\~"),
        ("a | b & c \\ d", r"a \| b \& c \\ d"),
        ("# head", r"\# head"),
        ("- item", r"\- item"),
        ("1. item", r"1\. item"),
        ("49", "49"),
        ("a\n* b", r"a\\n\* b"),
    ],
)
def test_markdown_in_text_is_shown_and_not_obeyed(text: str, markdown: str) -> None:
    assert escape_markdown(text) == markdown


@given(st.text())
def test_text_that_was_escaped_is_read_back(text: str) -> None:
    assert unescape_markdown(escape_markdown(text)) == printable(text)


def test_a_cell_cannot_end_its_row() -> None:
    assert markdown_table(["a", "b"], [("x | y", "1\n2")]) == "| a | b |\n| --- | --- |\n| x \\| y | 1\\\\n2 |"
