"""Errors of the deploys.

DeployError                   a machine can't be brought in line; the text says what to do
├── TargetError               there is no such machine in the configuration folder, or no such folder
└── MissingPackagesError      the image lacks packages that a part needs: build a newer image
"""

from collections.abc import Sequence


class DeployError(Exception):
    """Root of the package's errors."""


class TargetError(DeployError):
    """The target can't be found."""


class MissingPackagesError(DeployError):
    """An image lacks packages; nothing can be installed on it."""

    def __init__(self, names: Sequence[str]) -> None:
        """Name the packages."""
        super().__init__(
            f"the image lacks {', '.join(names)}, and nothing can be installed on it: "
            "add them to image_build/packages.py and update the machine to that image"
        )
        self.names = tuple(names)
