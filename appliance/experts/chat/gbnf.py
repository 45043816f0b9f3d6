"""Checks grammars that clients bring (GBNF, llama.cpp's grammars/README.md) before llama.cpp sees them.

llama.cpp keeps every way in which a text so far can be read, and follows all of them at each character. Where a rule
leads to itself from the middle, their number can double with every character, which ends only with the memory. So a
client's grammar may repeat but not recurse, and is bounded in what it is when every rule is written out in its place,
and in the number of ways. Nested JSON is what `response_format` is for.

The bound of the ways: in a sequence of parts of fixed length one part is being read at a time, and in a repetition of
such a part one copy; behind a part of varying length, every character may be the one that is being read.
"""

import re
from typing import NamedTuple, NoReturn

from appliance.experts.errors import InvalidRequestError

LARGEST_GBNF = 16 * 1024
"""Characters."""
MOST_ELEMENTS = 2_000
"""Characters and character classes, written out."""
MOST_WAYS = 256
"""Readings that may be followed at the same time."""
MOST_DEPTH = 32
"""Parentheses in one another, and rules that stand for one another."""

_TOKEN = re.compile(
    r"""
    (?P<skip>\s+|\#[^\n]*)
  | (?P<rule>[a-zA-Z0-9-]+)(?=\s*::=)
  | (?P<define>::=)
  | (?P<name>[a-zA-Z0-9-]+)
  | "(?P<literal>(?:[^"\\]|\\.)*)"
  | (?P<class>\[\^?(?:[^\]\\]|\\.)*\]|\.)
  | (?P<repeat>[*+?]|\{\s*(?P<least>\d{1,4})\s*(?P<comma>,)?\s*(?P<most>\d{1,4})?\s*\})
  | (?P<sign>[()|])
    """,
    re.VERBOSE | re.DOTALL,
)
_LITERAL_CHARACTER = re.compile(r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)|.", re.DOTALL)

type Times = tuple[int, int | None]
"""The least and the most; None is without end."""
type Element = int | str | tuple[list[list["Element"]], Times | None]
"""Characters, the name of a rule, or alternatives and how often they are repeated."""


def check_gbnf(text: str, param: str = "grammar") -> None:
    """Raise InvalidRequestError unless llama.cpp can work with a grammar in bounded time and memory."""
    _Checker(text, param).check()


class _Measure(NamedTuple):
    size: int
    """Characters and classes, written out."""
    ways: int
    """Readings at the same time."""
    length: int | None
    """Characters of every text that it describes; None if they differ."""


class _Checker:
    def __init__(self, text: str, param: str) -> None:
        self._text, self._param = text, param
        self._rules: dict[str, list[list[Element]]] = {}
        self._measures: dict[str, _Measure] = {}

    def check(self) -> None:
        if len(self._text) > LARGEST_GBNF:
            self._refuse(f"it has more than {LARGEST_GBNF} characters")
        if "\0" in self._text or any("\ud800" <= character <= "\udfff" for character in self._text):
            self._refuse("it has a NUL character or a lone surrogate")
        self._parse()
        if "root" not in self._rules:
            self._refuse("there is no rule named root")
        for name in self._rules:
            self._rule(name, ())
        if self._measures["root"].ways > MOST_WAYS:
            self._refuse(f"a text could be read in more than {MOST_WAYS} ways at the same time")

    def _parse(self) -> None:
        at = 0
        stack: list[list[list[Element]]] = []
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                self._refuse(f"{self._text[at : at + 20]!r} at character {at} is no GBNF that is allowed here")
            at = match.end()
            kind = match.lastgroup
            if kind == "skip":
                continue
            if kind == "rule":
                if len(stack) > 1 or match["rule"] in self._rules:
                    self._refuse(f"the rule {match['rule']!r:.80} begins inside of another, or a second time")
                self._rules[match["rule"]] = [[]]
                stack = [self._rules[match["rule"]]]
            elif kind != "define":
                self._take(match, stack)
        if len(stack) > 1:
            self._refuse("a parenthesis is not closed")

    def _take(self, match: re.Match[str], stack: list[list[list[Element]]]) -> None:
        if not stack:
            self._refuse("it does not begin with a rule, such as root ::= …")
        sequence = stack[-1][-1]
        if (name := match["name"]) is not None:
            sequence.append(name)
        elif (literal := match["literal"]) is not None:
            sequence.append(len(_LITERAL_CHARACTER.findall(literal)))
        elif match["class"] is not None:
            sequence.append(1)
        elif match["sign"] is not None:
            self._group(match["sign"], stack)
        elif sequence:
            sequence.append(([[sequence.pop()]], self._times(match)))
        else:
            self._refuse("a repetition has nothing before it")

    def _group(self, sign: str, stack: list[list[list[Element]]]) -> None:
        if sign == "|":
            stack[-1].append([])
        elif sign == ")":
            if len(stack) == 1:
                self._refuse("a parenthesis is closed that was not opened")
            stack.pop()
        elif len(stack) > MOST_DEPTH:
            self._refuse(f"it has more than {MOST_DEPTH} parentheses in one another")
        else:
            inner: list[list[Element]] = [[]]
            stack[-1][-1].append((inner, None))
            stack.append(inner)

    def _times(self, match: re.Match[str]) -> Times:
        if match["least"] is None:
            return {"*": (0, None), "+": (1, None), "?": (0, 1)}[match["repeat"]]
        least = int(match["least"])
        most = int(match["most"]) if match["most"] else None if match["comma"] else least
        if most is not None and most < least:
            self._refuse(f"in {match['repeat']!r} the least is more than the most")
        return least, most

    def _rule(self, name: str, path: tuple[str, ...]) -> _Measure:
        if name in path:
            self._refuse(f"the rule {name!r:.80} leads to itself; only * and + and {{}} may repeat")
        if len(path) > MOST_DEPTH:
            self._refuse(f"more than {MOST_DEPTH} rules stand for one another")
        if name not in self._rules:
            self._refuse(f"there is no rule named {name!r:.80}")
        if name not in self._measures:
            self._measures[name] = self._alternatives(self._rules[name], (*path, name))
        return self._measures[name]

    def _alternatives(self, alternatives: list[list[Element]], path: tuple[str, ...]) -> _Measure:
        measures = [self._sequence(sequence, path) for sequence in alternatives]
        lengths = {measure.length for measure in measures}
        size = len(measures) + sum(measure.size for measure in measures)
        ways = sum(max(measure.ways, 1) for measure in measures)
        return self._checked(_Measure(size, ways, lengths.pop() if len(lengths) == 1 else None))

    def _sequence(self, sequence: list[Element], path: tuple[str, ...]) -> _Measure:
        size = ways = 0
        length: int | None = 0
        for element in sequence:
            part = self._element(element, path)
            ways = ways + part.size if length is None else max(ways, part.ways)
            length = None if length is None or part.length is None else length + part.length
            size += part.size
        return self._checked(_Measure(size, ways, length))

    def _element(self, element: Element, path: tuple[str, ...]) -> _Measure:
        match element:
            case int():
                return _Measure(element, 1, element)
            case str():
                return self._rule(element, path)
            case (inner, (least, most)):
                part = self._alternatives(inner, path)
                size = part.size * max(least, 1 if most is None else most, 1) + part.size
                ways = size if part.length is None else part.ways
                length = None if part.length is None or least != most else part.length * least
                return self._checked(_Measure(size, ways + 1, length))
            case (inner, _):
                return self._alternatives(inner, path)

    def _checked(self, measure: _Measure) -> _Measure:
        if measure.size > MOST_ELEMENTS:
            self._refuse(f"written out, it has more than {MOST_ELEMENTS} characters and classes")
        return measure

    def _refuse(self, reason: str) -> NoReturn:
        raise InvalidRequestError(f"{self._param}: {reason}.", param=self._param)
