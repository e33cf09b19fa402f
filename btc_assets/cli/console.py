"""The consoles on which commands print. What they are given is data: a `[` is a bracket, and a control character is shown, not obeyed.

Color is asked for with `styled`, never with markup in a string. A test checks that no command prints in another way.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from rich.console import Console
from rich.text import Text

from btc_assets.domain.printable import printable

_PIPE_CLOSED = 141  # what shells report of a program that ended because nobody read its output any more (SIGPIPE)


def leave_closed_pipe() -> NoReturn:
    """End the command because nobody reads its output any more, as in `| head`: without a word, as `cat` would end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes what it still holds at the very end
    raise SystemExit(_PIPE_CLOSED)


class PlainConsole(Console):
    """A console that shows every string as it is, on one line, also in the cells of a table."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print sentences, each on a line of its own however long it is, or a table."""
        sentences = all(isinstance(each, str | Text) for each in objects)
        super().print(*objects, **({"soft_wrap": sentences} | options))

    def render_str(self, text: str, **options: Any) -> Text:
        """The text as it is, whatever the options say."""
        return super().render_str(printable(text), **(options | {"markup": False, "emoji": False, "highlight": False}))

    def on_broken_pipe(self) -> NoReturn:
        """What rich calls where the reader went away; the status would be 1."""
        leave_closed_pipe()


out = PlainConsole()
err = PlainConsole(stderr=True)


def styled(text: str, style: str) -> Text:
    """Text in a color, or bold."""
    return Text(printable(text), style)


def lines(text: str) -> Text:
    """A text of ours that has several lines."""
    return Text("\n").join(Text(printable(line)) for line in text.split("\n"))
