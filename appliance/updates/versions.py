"""Which of two versions is newer, as systemd-sysupdate and systemd-boot see it.

The order is that of the UAPI Group's Version Format Specification (https://uapi-group.org/specifications/specs/version_format_specification/);
`systemd-analyze compare-versions` implements it too.
"""

import functools
import re

VERSION = r"[0-9][0-9A-Za-z.~]{0,23}"
"""A version of an image; `image_build.layout` makes no others."""

_PATTERN = re.compile(VERSION)
_SEPARATORS = "-^."
_NO_PART = re.compile(r"[^0-9A-Za-z~^.-]*")
_DIGITS = re.compile(r"[0-9]*")
_LETTERS = re.compile(r"[A-Za-z]*")


def is_version(text: str) -> bool:
    """Whether a text is a version of an image."""
    return _PATTERN.fullmatch(text) is not None


def compare(one: str, other: str) -> int:
    """Return a negative number if `one` is older, 0 if they are the same, a positive number if it is newer."""
    while True:
        one, other = one[_end(_NO_PART, one) :], other[_end(_NO_PART, other) :]
        if one.startswith("~") or other.startswith("~"):
            if order := other.startswith("~") - one.startswith("~"):
                return order
            one, other = one[1:], other[1:]
        if not one or not other:
            return bool(one) - bool(other)
        for separator in _SEPARATORS:
            if one.startswith(separator) or other.startswith(separator):
                if order := other.startswith(separator) - one.startswith(separator):
                    return order
                one, other = one[1:], other[1:]
        kind = _DIGITS if one[:1].isdigit() or other[:1].isdigit() else _LETTERS
        mine, its = one[: _end(kind, one)], other[: _end(kind, other)]
        order = _numbers(mine, its) if kind is _DIGITS else (mine > its) - (mine < its)
        if order:
            return order
        one, other = one[len(mine) :], other[len(its) :]


def _reversed(one: str, other: str) -> int:
    return compare(other, one)


newest_first = functools.cmp_to_key(_reversed)
"""A key for sorting."""


def is_newer(one: str, other: str) -> bool:
    """Whether `one` is newer than `other`."""
    return compare(one, other) > 0


def _numbers(one: str, other: str) -> int:
    if order := bool(one) - bool(other):
        return order
    mine, its = int(one or 0), int(other or 0)
    return (mine > its) - (mine < its)


def _end(kind: re.Pattern[str], text: str) -> int:
    found = kind.match(text)
    return found.end() if found else 0
