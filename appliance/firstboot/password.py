"""The administrator's password: one field of /etc/shadow (shadow(5)), which a new version of the image does not have.

It comes from the file, or from what a deploy left in `etc/rouse`, which every version carries over.
"""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.firstboot import files
from appliance.firstboot.errors import ApplyError

_log = logging.getLogger(__name__)

LEFT_BY_DEPLOY = "etc/rouse/administrator.hash"
_SHADOW = "etc/shadow"
_LOCK = "etc/.pwd.lock"


def set_password(root: Path, user: str, hashed: str | None) -> Iterator[str]:
    """Set a user's password unless it is so, and yield what was written.

    Args:
        root: of the system.
        user: whose it is.
        hashed: what crypt(3) made of it; what a deploy left when it is None, and if there is nothing, all stays.

    Raises:
        ApplyError: the disk does not take it.
    """
    wanted = hashed if hashed is not None else _left(root / LEFT_BY_DEPLOY)
    shadow = root / _SHADOW
    if wanted is None or not shadow.exists():
        return
    with _locked(root / _LOCK):
        found = shadow.stat()
        lines = shadow.read_text(encoding="utf-8").splitlines()
        changed = [_with_password(line, wanted) if line.split(":")[0] == user else line for line in lines]
        if not any(line.split(":")[0] == user for line in lines):
            _log.warning("there is no user %s, so that its password is not set", user)
        elif changed != lines:
            content = "".join(f"{line}\n" for line in changed).encode()
            files.write(shadow, content, mode=found.st_mode & 0o777, group=found.st_gid)
            yield _SHADOW


def _with_password(line: str, hashed: str) -> str:
    name, _, *rest = line.split(":")
    return ":".join([name, hashed, *rest])


def _left(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        _log.warning("%s can't be read: %s", path, error)
        return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other programs from changing it meanwhile, as lckpwdf(3) does."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ApplyError(f"{path}: can't be locked: {error.strerror}; first boot runs as root") from error
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
