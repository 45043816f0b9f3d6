"""Errors of the settings.

SettingsError                 the command can't go on; its text is for the user, one line for each problem
├── InvalidSettingsError      files or variables are wrong: correct them
└── UnknownKeyError           someone asked for a key that does not exist: ask for another
"""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.settings.source import Source


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    source: Source
    key: str | None
    text: str
    column: int | None = None
    """Set for syntax errors, where no key is known."""

    def __str__(self) -> str:
        where = str(self.source)
        if self.column is not None:
            where += f":{self.column}"
        if self.key is None or self.source.variable is not None:
            return f"{where}: {self.text}"
        return f"{where}: {self.key}: {self.text}"


class SettingsError(Exception):
    """Root of the package's errors."""


class InvalidSettingsError(SettingsError):
    """Some settings are wrong; all problems found are named."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take the problems, in the order they are to be read."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class UnknownKeyError(SettingsError):
    """No setting has this key."""

    def __init__(self, key: str, suggestion: str | None) -> None:
        """Name the key, and the one that was probably meant."""
        hint = f"; did you mean {suggestion}?" if suggestion else ""
        super().__init__(f"{key}: unknown key{hint}")
        self.key = key
        self.suggestion = suggestion
