"""Text from outside, such as names of files and messages of a server, so that it can be shown: on a terminal, in a log, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# Control characters (a terminal obeys them, and a line end forges a line of a log), characters that turn the direction of text
# around, and what is left of bytes that are not UTF-8 (they cannot be written at all).
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")

# `_` inside a word is no markup, and names are full of it.
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~$&]|(?<![^\W_])_|_(?![^\W_])|^\s*(?:[#+=-]|\d+[.)])")


def printable(text: str) -> str:
    """The text on one line, its unprintable characters as escapes such as `\\n` and `\\x1b`."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def escape_markdown(text: str) -> str:
    """The text as Markdown that shows it as it is."""
    return _MARKDOWN.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", printable(text))


def unescape_markdown(text: str) -> str:
    """The text that `escape_markdown` was given, as far as it was printable."""
    return re.sub(r"\\(.)", r"\1", text)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown that shows its cells as they are."""
    lines = [head, ["---"] * len(head), *([escape_markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
