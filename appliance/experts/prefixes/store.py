"""Prefixes on disk: one file each, written whole or not at all, authenticated before it is used.

llama.cpp trusts the states that it is given, so a file is loaded only if this node wrote it for this very model
and these settings: a keyed BLAKE2b (RFC 7693) covers all of it. What doesn't fit is deleted and computed again.

File: magic, length of the header, header (JSON), tokens (int32, little endian), state, 32 bytes of BLAKE2b.
"""

import contextlib
import hashlib
import hmac
import io
import json
import logging
import os
import secrets
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.experts.prefixes.images import Image
from appliance.experts.prefixes.tree import common_prefix

_log = logging.getLogger(__name__)

MAGIC = b"ROUSEPF1"
SUFFIX = ".prefix"
MAC_BYTES = 32
MOST_HEADER_BYTES = 4096
MOST_TOKENS = 1 << 20
_LENGTH = struct.Struct("<I")


class Header(BaseModel):
    """What a file says of itself."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    state: str
    """What the state was computed with: model, llama.cpp, settings of the context."""
    tokens: int = Field(ge=1, le=MOST_TOKENS)
    data_bytes: int = Field(ge=1)
    name: str = ""


class ForeignFileError(Exception):
    """The file is no prefix of this node, model and settings."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file and the tokens it is for."""

    path: Path
    tokens: tuple[int, ...]
    name: str
    size: int


class PrefixStore:
    """A folder of prefixes, up to a number of bytes; the least recently used one goes first.

    `put` and `load` do their work in a thread of the store's own.
    """

    def __init__(self, folder: Path, *, state: str, capacity: int, divisible: bool = True) -> None:
        """Read what is there. Raises OSError if the folder can't be made."""
        self._folder = folder
        self._state = state
        self._capacity = capacity
        self._divisible = divisible
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._key = _own_key(folder / "key")
        self._lock = threading.Lock()
        self._stored: list[Stored] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prefixes")
        self.refused = 0
        """Files that were not what they should be."""
        self._scan()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        with self._lock:
            return sum(stored.size for stored in self._stored)

    @property
    def count(self) -> int:
        """Number of prefixes."""
        with self._lock:
            return len(self._stored)

    def holds(self, tokens: list[int]) -> bool:
        """Whether a prefix that begins with these tokens is there."""
        wanted = tuple(tokens)
        with self._lock:
            return any(stored.tokens[: len(wanted)] == wanted for stored in self._stored)

    def best(self, tokens: list[int], limit: int) -> tuple[Stored | None, int]:
        """Return the prefix that shares most leading tokens, and how many."""
        found, most = None, 0
        wanted = tuple(tokens[:limit])
        with self._lock:
            for stored in self._stored:
                shared = common_prefix(stored.tokens, wanted)
                if shared > most and (self._divisible or shared == len(stored.tokens)):
                    found, most = stored, shared
        return found, most

    def recent(self) -> list[Stored]:
        """Return all, the last used one first."""
        with self._lock:
            return list(reversed(self._stored))

    def put(self, image: Image, name: str = "") -> Future[None]:
        """Write an image; older ones that it contains, or of the same name, are removed."""
        return self._thread.submit(self._write, image, name)

    def load(self, stored: Stored, then: Callable[[Image | None], None]) -> None:
        """Read and check a file; `then` is called in the store's thread, with None if it was refused."""
        self._thread.submit(lambda: then(self._read(stored)))

    def forget(self, stored: Stored) -> None:
        """Leave a file alone from now on: there is no room for it in memory."""
        with self._lock:
            if stored in self._stored:
                self._stored.remove(stored)

    def flush(self) -> Future[None]:
        """Return what is done when everything that was put before is on disk."""
        return self._thread.submit(lambda: None)

    def close(self) -> None:
        """Finish what was begun."""
        self._thread.shutdown(wait=True)

    def _scan(self) -> None:
        found: list[tuple[float, Stored]] = []
        for path in self._folder.glob("*.tmp"):
            path.unlink(missing_ok=True)
        for path in sorted(self._folder.glob("*" + SUFFIX)):
            try:
                with path.open("rb") as file:
                    header, tokens = _read_head(file.read(len(MAGIC) + _LENGTH.size), file.read)
                    status = os.fstat(file.fileno())
            except (OSError, ForeignFileError) as error:
                self._refuse(path, error)
                continue
            if header.state != self._state:
                self._refuse(path, ForeignFileError("it is for another model or other settings"))
                continue
            found.append((status.st_mtime, Stored(path, tokens, header.name, status.st_size)))
        self._stored = [stored for _, stored in sorted(found, key=lambda item: item[0])]

    def _write(self, image: Image, name: str) -> None:
        tokens = np.asarray(image.tokens, "<i4").tobytes()
        header = Header(state=self._state, tokens=len(image.tokens), data_bytes=len(image.data), name=name)
        text = header.model_dump_json().encode()
        parts = (MAGIC, _LENGTH.pack(len(text)), text, tokens, image.data)
        size = sum(map(len, parts)) + MAC_BYTES
        if size > self._capacity:
            _log.info("a prefix of %d tokens needs %d bytes, more than may be kept on disk", len(image.tokens), size)
            return
        path = self._folder / (hashlib.blake2b(self._state.encode() + tokens, digest_size=16).hexdigest() + SUFFIX)
        new = Stored(path, image.tokens, name, size)
        with self._lock:
            replaced = [stored for stored in self._stored if self._replaces(new, stored)]
        try:
            for stored in replaced:
                self._remove(stored)
            self._make_room(size)
            temporary = path.with_suffix(".tmp")
            mac = hashlib.blake2b(key=self._key, digest_size=MAC_BYTES)
            with temporary.open("wb") as file:
                for part in parts:
                    mac.update(part)
                    file.write(part)
                file.write(mac.digest())
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            _log.warning("a prefix of %d tokens can't be kept on disk: %s", len(image.tokens), error)
            with contextlib.suppress(OSError):
                path.with_suffix(".tmp").unlink(missing_ok=True)
            return
        with self._lock:
            self._stored.append(new)
        _log.info("kept a prefix of %d tokens on disk, %d MB", len(image.tokens), size >> 20)

    def _replaces(self, new: Stored, old: Stored) -> bool:
        contained = self._divisible and new.tokens[: len(old.tokens)] == old.tokens
        return contained or new.path == old.path or (bool(new.name) and new.name == old.name)

    def _make_room(self, size: int) -> None:
        while self.size + size > self._capacity:
            with self._lock:
                oldest = self._stored[0]
            self._remove(oldest)

    def _remove(self, stored: Stored) -> None:
        with self._lock:
            if stored in self._stored:
                self._stored.remove(stored)
        stored.path.unlink(missing_ok=True)

    def _read(self, stored: Stored) -> Image | None:
        try:
            image = self._checked(stored.path.read_bytes(), stored.tokens)
            os.utime(stored.path)
        except (OSError, ForeignFileError) as error:
            self._refuse(stored.path, error)
            with self._lock:
                if stored in self._stored:
                    self._stored.remove(stored)
            return None
        with self._lock:
            if stored in self._stored:
                self._stored.remove(stored)
                self._stored.append(stored)
        return image

    def _checked(self, content: bytes, expected: tuple[int, ...]) -> Image:
        mac = hashlib.blake2b(memoryview(content)[:-MAC_BYTES], key=self._key, digest_size=MAC_BYTES)
        if not hmac.compare_digest(mac.digest(), content[-MAC_BYTES:]):
            raise ForeignFileError("its authentication code is wrong: it is damaged, or was not written by this node")
        file = io.BytesIO(content)
        header, tokens = _read_head(file.read(len(MAGIC) + _LENGTH.size), file.read)
        data = memoryview(content)[file.tell() : -MAC_BYTES]
        if header.state != self._state or tokens != expected or len(data) != header.data_bytes:
            raise ForeignFileError("it is for another model or other settings")
        return Image(tokens, 0, data)

    def _refuse(self, path: Path, error: Exception) -> None:
        self.refused += 1
        _log.warning("%s is not used, and removed: %s", path, error)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _read_head(start: bytes, read: Callable[[int], bytes]) -> tuple[Header, tuple[int, ...]]:
    if len(start) != len(MAGIC) + _LENGTH.size or not start.startswith(MAGIC):
        raise ForeignFileError("it does not begin like a prefix")
    (length,) = _LENGTH.unpack(start[len(MAGIC) :])
    if length > MOST_HEADER_BYTES:
        raise ForeignFileError(f"its header would have {length} bytes")
    try:
        header = Header.model_validate(json.loads(read(length)))
    except (ValueError, ValidationError, RecursionError) as error:
        raise ForeignFileError("its header can't be read") from error
    raw = read(4 * header.tokens)
    if len(raw) != 4 * header.tokens:
        raise ForeignFileError("it is too short")
    return header, tuple(np.frombuffer(raw, "<i4").tolist())


def _own_key(path: Path) -> bytes:
    """Return the key that this folder's files are authenticated with; made at first."""
    try:
        key = path.read_bytes()
        if len(key) == MAC_BYTES:
            return key
    except FileNotFoundError:
        pass
    key = secrets.token_bytes(MAC_BYTES)
    temporary = path.with_suffix(f".{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return key
