"""The versions of the trained router, and which of them is at work.

Below the folder: `versions/NAME/` as `files` writes them, and the links `current` and `previous` to two of them.
"""

import contextlib
import re
import secrets
from pathlib import Path

from appliance.routing.errors import RouterFilesError, VersionError
from appliance.routing.files import VERSION_PATTERN, Manifest, load, read_manifest

CURRENT, PREVIOUS, VERSIONS = "current", "previous", "versions"


def router_folder(state: Path) -> Path:
    """Return the folder of the router's versions and data in the state folder."""
    return state / "router"


class RouterVersions:
    """The folder `router` in the state folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Return the folder of a version.

        Raises:
            VersionError: it can't be the name of one.
        """
        if not re.fullmatch(VERSION_PATTERN, name):
            raise VersionError(f"{name!r} can't be a version: use lower-case letters, digits, '.', '_' and '-'")
        return self.folder / VERSIONS / name

    def names(self) -> list[str]:
        """Return all versions, the oldest name first."""
        with contextlib.suppress(FileNotFoundError):
            found = (entry.name for entry in (self.folder / VERSIONS).iterdir() if entry.is_dir())
            return sorted(name for name in found if re.fullmatch(VERSION_PATTERN, name))
        return []

    def manifest(self, name: str) -> Manifest | RouterFilesError:
        """Return a version's manifest, or what is wrong with it."""
        try:
            return read_manifest(self.path(name))
        except RouterFilesError as error:
            return error

    def current(self) -> str | None:
        """Return the version at work."""
        return self._target(CURRENT)

    def previous(self) -> str | None:
        """Return the version that was at work before."""
        return self._target(PREVIOUS)

    def activate(self, name: str) -> None:
        """Put a version to work, after it was read and checked as a whole.

        Raises:
            VersionError: there is no such version.
            RouterFilesError: it is broken, or the link can't be written.
        """
        folder = self.path(name)
        if not folder.is_dir():
            raise VersionError(f"there is no version {name!r}; `rouse router list` shows those there are")
        if load(folder).name != name:
            raise RouterFilesError(f"{folder}: its manifest is that of another version; train again")
        before = self.current()
        if before is not None and before != name:
            self._link(PREVIOUS, before)
        self._link(CURRENT, name)

    def rollback(self) -> str:
        """Put the version to work that was before, and return its name; a second time goes forth again.

        Raises:
            VersionError: there was none.
            RouterFilesError: it is broken.
        """
        name = self.previous()
        if name is None:
            raise VersionError("there is no version to go back to; `rouse router list` shows those there are")
        self.activate(name)
        return name

    def _target(self, link: str) -> str | None:
        try:
            target = (self.folder / link).readlink()
        except OSError:
            return None
        known = target.parent == Path(VERSIONS) and re.fullmatch(VERSION_PATTERN, target.name)
        return target.name if known else None

    def _link(self, link: str, name: str) -> None:
        draft = self.folder / f".{link}-{secrets.token_hex(4)}"
        try:
            draft.symlink_to(Path(VERSIONS) / name)
            draft.replace(self.folder / link)
        except OSError as error:
            raise RouterFilesError(f"{self.folder / link}: can't be written: {error}") from error
        finally:
            draft.unlink(missing_ok=True)
