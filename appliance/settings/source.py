"""Where a setting comes from."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

type KeyPath = tuple[str | int, ...]
"""Keys from the root to a value; an integer is the index of an array's item."""

LayerName = Literal["default", "machine", "group", "host", "first-boot", "environment"]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Source:
    """The layer of a value, and the file and line or the environment variable that set it."""

    layer: LayerName
    file: Path | None = None
    line: int | None = None
    """Counted from 1."""
    variable: str | None = None

    def __str__(self) -> str:
        if self.variable is not None:
            return f"environment variable {self.variable}"
        if self.file is None:
            return self.layer
        return f"{self.file}:{self.line}" if self.line is not None else str(self.file)


def dotted(path: KeyPath) -> str:
    """Write a path as TOML does, with array indexes in brackets: `node.roles[1]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _BARE_KEY.fullmatch(part) else json.dumps(part))
    return text
