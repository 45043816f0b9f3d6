"""The terminal: whether it can move its cursor, how large it is, and its keys."""

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Iterator
from dataclasses import dataclass

_DUMB = frozenset({"", "dumb", "unknown"})
_USUAL = (80, 24)
"""A serial line does not know its size."""
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_HOME, _TO_LINE_END, _TO_SCREEN_END = "\x1b[H", "\x1b[K", "\x1b[J"


@dataclass(frozen=True, slots=True)
class Terminal:
    """Standard input and output."""

    draws: bool
    """Whether it moves its cursor; otherwise only what changes is written."""
    keys: bool

    @classmethod
    def found(cls, *, plain: bool) -> "Terminal":
        """Return what this process has."""
        draws = not plain and sys.stdout.isatty() and os.environ.get("TERM", "") not in _DUMB
        return cls(draws=draws, keys=sys.stdin.isatty())

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        try:
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
        except (OSError, ValueError):
            return _USUAL
        return (columns, lines) if columns > 0 and lines > 0 else _USUAL

    def draw(self, lines: list[str]) -> None:
        """Replace the screen, without the flicker of clearing it first."""
        body = "\r\n".join(line + _TO_LINE_END for line in lines)
        write(_HOME + body + _TO_SCREEN_END)


@contextlib.contextmanager
def single_keys() -> Iterator[None]:
    """Have keys at once and unseen, instead of line by line."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def write(text: str) -> None:
    """Write to the terminal at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
