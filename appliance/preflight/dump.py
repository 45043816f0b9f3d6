"""What the script on a machine printed, taken apart. All of it is hostile: the machine may not be ours yet.

The script is `host/collect.sh`. Records are "@file PATH", "@link PATH", "@fact NAME" or "@command NAME", each
followed by lines that begin with "|"; so no content can look like a record. What a login shell prints before or
after the dump is passed over.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from appliance.preflight.errors import DumpError

LONGEST_DUMP = 4 << 20
LONGEST_PROLOGUE = 64 << 10
"""What a machine may say before the script's first line."""
MOST_RECORDS = 20_000
LONGEST_NAME = 300
LONGEST_LINE = 16_384
_KINDS = frozenset({"file", "link", "fact", "command"})
_DIGITS = re.compile(r"[+-]?[0-9]{1,18}")


class Dump:
    """Records by kind and name; whatever is missing is None, and nothing is printed that a terminal would obey."""

    def __init__(self, records: Mapping[tuple[str, str], str]) -> None:
        """Take the records' contents."""
        self._records = records
        self._children: dict[str, dict[str, None]] = {}
        for kind, name in records:
            if kind in {"file", "link"}:
                self._add(name)

    def _add(self, path: str) -> None:
        folder, _, name = path.rpartition("/")
        while folder:
            names = self._children.setdefault(folder, {})
            if name in names:
                return
            names[name] = None
            folder, _, name = folder.rpartition("/")

    def file(self, path: str) -> str | None:
        """Return a file's text."""
        return self._records.get(("file", path))

    def line(self, path: str) -> str | None:
        """Return a file's first line."""
        text = self.file(path)
        return text.partition("\n")[0].strip() if text is not None else None

    def number(self, path: str) -> int | None:
        """Return the number that is a file's whole content."""
        return number(self.line(path))

    def link(self, path: str) -> str | None:
        """Return where a symbolic link leads: the last part of the path."""
        text = self._records.get(("link", path))
        return text.strip().rpartition("/")[2] if text is not None else None

    def fact(self, name: str) -> str | None:
        """Return what the script found out itself."""
        text = self._records.get(("fact", name))
        return text.strip() if text is not None else None

    def facts(self, beginning: str) -> tuple[str, ...]:
        """Return the names of facts that begin so, without that."""
        found = [name for kind, name in self._records if kind == "fact" and name.startswith(beginning)]
        return tuple(name.removeprefix(beginning) for name in found)

    def command(self, name: str) -> str | None:
        """Return what a program said; None where there is no such program."""
        text = self._records.get(("command", name))
        return text.strip() if text is not None else None

    def json(self, name: str) -> Mapping[str, Any]:
        """Return the JSON object that a program said; empty where it is none."""
        try:
            told = json.loads(self.command(name) or "null")
        except (ValueError, RecursionError):
            return {}
        return told if isinstance(told, dict) else {}

    def names(self, folder: str) -> tuple[str, ...]:
        """Return the names in a folder, as far as something in them was read."""
        return tuple(sorted(self._children.get(folder, ())))


def number(text: object) -> int | None:
    """Return a whole number of at most 18 digits."""
    if isinstance(text, bool):
        return None
    if isinstance(text, int):
        return text if abs(text) < 10**18 else None
    if isinstance(text, str) and _DIGITS.fullmatch(text.strip()):
        return int(text)
    return None


def measure(value: object) -> float | None:
    """Return a number from JSON that is of a sensible size."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -1e15 < value < 1e15 else None


def parse(data: bytes, token: str) -> Dump:
    """Take a dump apart.

    Args:
        data: what the machine printed.
        token: what this run of the script has in its first and last line.

    Raises:
        DumpError: this is no dump, or not all of it.
    """
    if len(data) > LONGEST_DUMP:
        raise DumpError(f"the machine sent more than {LONGEST_DUMP >> 20} MiB")
    lines = iter(data.decode("utf-8", "replace").split("\n"))
    passed = 0
    for line in lines:
        if line.rstrip("\r") == f"rouse-preflight 1 {token}":
            break
        passed += len(line) + 1
        if passed > LONGEST_PROLOGUE:
            raise DumpError(f"the machine runs no script: it sent something else ({_shown(data)})")
    else:
        raise DumpError(f"the machine runs no script: {f'it said {_shown(data)}' if data else 'it said nothing'}")
    records: dict[tuple[str, str], list[str]] = {}
    content: list[str] | None = None
    for raw in lines:
        line = raw.rstrip("\r")
        if line == f"rouse-preflight end {token}":
            return Dump({key: "\n".join(found) for key, found in records.items()})
        if line.startswith("|") and content is not None:
            content.append(_printable(line[1 : LONGEST_LINE + 1]))
        elif line.startswith("@"):
            content = _begin(line, records)
        elif line:
            raise DumpError(f"the machine's answer is no dump: {_shown(line.encode())}")
    raise DumpError("the machine's answer breaks off")


def _begin(line: str, records: dict[tuple[str, str], list[str]]) -> list[str]:
    kind, _, name = line[1:].partition(" ")
    if kind not in _KINDS or not name or len(name) > LONGEST_NAME or len(records) >= MOST_RECORDS:
        raise DumpError(f"the machine's answer is no dump: {_shown(line.encode())}")
    key = (kind, _printable(name))
    if key in records:
        raise DumpError(f"the machine's answer has {kind} {key[1]} twice")
    records[key] = []
    return records[key]


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in text)


def _shown(data: bytes) -> str:
    """Show the beginning of what came instead."""
    text = data[:200].decode("utf-8", "replace").strip().partition("\n")[0]
    return repr(_printable(text)[:80])
