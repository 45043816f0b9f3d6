"""Errors of the first boot.

FirstBootError
├── RefusedFileError   the file is wrong: tell its author, and keep the last good one
└── ApplyError         the machine can't be changed: run as root, or look at the disk
"""

from collections.abc import Sequence

from appliance.settings.errors import Problem


class FirstBootError(Exception):
    """Root of the package's errors."""


class RefusedFileError(FirstBootError):
    """The file can't be used; the problems never hold a secret."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take what is wrong, in reading order."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


class ApplyError(FirstBootError):
    """The machine can't be changed."""
