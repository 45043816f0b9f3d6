"""Reads one TOML file of settings."""

import re
import tomllib
from pathlib import Path

from appliance.settings.errors import Problem
from appliance.settings.layers import Layer
from appliance.settings.source import LayerName, Source
from appliance.settings.toml_lines import lines_of

_POSITION = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


class UnreadableError(Exception):
    """A file can't be read as TOML; `load` gathers these."""

    def __init__(self, problem: Problem) -> None:
        """Take what is wrong."""
        super().__init__(str(problem))
        self.problem = problem


def read(path: Path, name: LayerName) -> Layer | None:
    """Read a file, or return None if there is none.

    People write these files on Windows too, so a byte order mark and CRLF are fine.

    Raises:
        UnreadableError: the file is there, but can't be read, or is no UTF-8 or no TOML.
    """
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnreadableError(Problem(Source(name, path), None, f"cannot be read: {reason}")) from error
    return parse(raw, path, name)


def parse(raw: bytes, path: Path, name: LayerName) -> Layer:
    """Return the layer that a file's content is; the path is for messages only.

    Raises:
        UnreadableError: it is no UTF-8 or no TOML.
    """
    text = _decode(raw, path, name).replace("\r\n", "\n")
    return Layer(name, _parse(text, path, name), file=path, lines=lines_of(text))


def _decode(raw: bytes, path: Path, name: LayerName) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UnreadableError(
            Problem(Source(name, path, line), None, "not UTF-8: save the file with that encoding")
        ) from error


def _parse(text: str, path: Path, name: LayerName) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        if position := _POSITION.search(message):
            message = message[: position.start()]
            line, column = _end(text) if position[1] is None else (int(position[1]), int(position[2]))
            problem = Problem(Source(name, path, line), None, f"not valid TOML: {_lower(message)}", column)
        else:
            problem = Problem(Source(name, path), None, f"not valid TOML: {_lower(message)}")
    except (ValueError, RecursionError):
        problem = Problem(Source(name, path), None, "not valid TOML: a number, key or nesting is too long")
    raise UnreadableError(problem)


def _end(text: str) -> tuple[int, int]:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
