"""Downloads one file: resumed where it was cut, never more than announced, verified from the disk.

Models and updates of the image come this way.

Ranges, entity tags and their answers are those of RFC 9110, sections 13 and 14. The source's own checksum is
Hugging Face's: its answer to a `resolve` URL carries `X-Linked-Etag`, which for a file in large file storage is
its SHA-256, `X-Linked-Size` and `X-Repo-Commit`, before it redirects to where the bytes are.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from appliance.models.errors import IntegrityError, SourceError
from appliance.models.part import Count, PartFile, PartState
from appliance.models.transport import Answer, Target, Transport, plain

_SHA256 = re.compile(r"[0-9a-f]{64}")
_REVISION = re.compile(r"[0-9A-Za-z._-]{1,64}")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19}|\*)")
_NUMBER = re.compile(r"\d{1,19}")
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """When a download gives up."""

    failures: int = 6
    """Attempts in a row that bring no new byte."""
    attempts: int = 1000
    """Attempts in all."""
    backoff: float = 1.0
    """Seconds before the second attempt; doubled with each that brings nothing."""
    wait: float = 120.0
    """Longest wait, in seconds, that a source may ask for (Retry-After)."""
    size: int = 256 << 30
    """Most bytes of a file whose size nobody knows."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to download, and what is known of it."""

    target: Target
    size: int | None
    sha256: str | None
    magic: bytes
    """How the file begins, so that a web page is refused before it is downloaded."""
    denied: str = ""
    """What may help where the source refuses to give it."""


@dataclass(frozen=True, slots=True)
class Received:
    """What was downloaded."""

    size: int
    sha256: str
    announced: bool
    """Whether the source said this checksum beforehand."""
    revision: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where to say how it goes."""

    total: Callable[[int, int | None], None] = lambda _done, _total: None
    """Called with the bytes that are here, and of how many."""
    hashed: Count = lambda _count: None
    note: Callable[[str], None] = lambda _text: None


class _InterruptedError(Exception):
    """An attempt ended early; another may go on."""

    def __init__(self, reason: str, *, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Download:
    """One file's download into its part."""

    def __init__(
        self,
        wanted: Wanted,
        part: PartFile,
        *,
        transport: Transport,
        limits: Limits,
        progress: Progress,
        room: Callable[[int], None],
    ) -> None:
        """Take what is wanted, where it goes, and what raises SpaceError when so many bytes find no room."""
        self._wanted = wanted
        self._part = part
        self._transport = transport
        self._limits = limits
        self._progress = progress
        self._room = room
        self._name = plain(wanted.target.url)
        self._resumed = part.length > 0

    async def run(self) -> Received:
        """Download, and verify size and checksum.

        Raises:
            SourceError: the source does not deliver; what came is kept for the next time.
            IntegrityError: what came is wrong; it was thrown away.
            SpaceError: the disk is full; what fitted is kept.
            RefusedError: a redirect leads where it must not.
        """
        await self._complete()
        digest = await self._digest()
        if not self._accepts(digest) and self._resumed:
            self._progress.note("the checksum is wrong; beginning anew, because parts came from earlier attempts")
            self._part.restart(PartState(source=self._part.state.source))
            await self._complete()
            digest = await self._digest()
        if not self._accepts(digest):
            expected = self._wanted.sha256 or self._part.state.sha256
            self._part.discard()
            raise IntegrityError(f"{self._name}: its SHA-256 is {digest}, expected {expected}; it was thrown away")
        state = self._part.state
        return Received(self._part.length, digest, state.sha256 == digest, state.revision)

    def _accepts(self, digest: str) -> bool:
        return digest == (self._wanted.sha256 or self._part.state.sha256 or digest)

    async def _digest(self) -> str:
        return await asyncio.to_thread(self._part.sha256, self._progress.hashed)

    async def _complete(self) -> None:
        """Attempt until all is here."""
        failures, furthest = 0, self._part.length
        for _ in range(self._limits.attempts):
            if self._is_complete():
                return
            try:
                await self._attempt()
            except _InterruptedError as interrupted:
                self._resumed = True
                failures = failures + 1 if self._part.length <= furthest else 0
                furthest = max(furthest, self._part.length)
                if failures >= self._limits.failures:
                    raise SourceError(
                        f"{self._name}: {interrupted}; gave up after {failures} attempts. "
                        "What came is kept: the next attempt goes on where it stopped"
                    ) from None
                wait = self._limits.backoff * 2 ** min(failures, 6) if interrupted.wait is None else interrupted.wait
                self._progress.note(f"{interrupted}; going on in {wait:.0f} s")
                await asyncio.sleep(wait)
            else:
                return
        raise SourceError(f"{self._name}: interrupted {self._limits.attempts} times; gave up")

    def _is_complete(self) -> bool:
        size = self._wanted.size or self._part.state.size
        return size is not None and self._part.length == size

    async def _attempt(self) -> None:
        state, offset = self._part.state, self._part.length
        headers = {}
        if offset and (state.etag is not None or self._checksum() is not None):
            headers["Range"] = f"bytes={offset}-"
            if state.etag is not None:
                headers["If-Range"] = state.etag
        elif offset:
            self._part.restart(PartState(source=state.source))
        try:
            async with self._transport.get(self._wanted.target, headers) as answer:
                if self._begin(answer):
                    await self._receive(answer.response)
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise _InterruptedError(f"the connection failed ({_words(error)})") from None

    def _checksum(self) -> str | None:
        return self._wanted.sha256 or self._part.state.sha256

    def _begin(self, answer: Answer) -> bool:
        """Look at the answer's head; tell whether bytes follow that belong to the part."""
        response = answer.response
        match response.status:
            case 200:
                self._begin_anew(answer)
                return True
            case 206:
                self._go_on(response)
                return True
            case 416 if self._part.length:
                self._beyond_the_end(response)
                return False
            case status if status in _PASSING:
                raise _InterruptedError(f"the source answers {status}", wait=self._retry_after(response.headers))
            case 401 | 403:
                hint = f"; {self._wanted.denied}" if self._wanted.denied else ""
                raise SourceError(f"{self._name}: the source answers {response.status}{hint}")
            case status:
                raise SourceError(f"{self._name}: the source answers {status}")

    def _begin_anew(self, answer: Answer) -> None:
        headers = answer.response.headers
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise SourceError(f"{self._name}: comes compressed although that was not asked for")
        first = answer.first
        announced = first.get("X-Linked-Etag", "").removeprefix("W/").strip('"').lower()
        sha256 = announced if _SHA256.fullmatch(announced) else None
        if self._wanted.sha256 and sha256 and sha256 != self._wanted.sha256:
            raise IntegrityError(
                f"{self._name}: the source announces SHA-256 {sha256}, expected {self._wanted.sha256}; "
                "nothing was downloaded"
            )
        linked, length = _number(first.get("X-Linked-Size")), _number(headers.get("Content-Length"))
        for size in (linked, length):
            self._check_size(size)
        if linked is not None and length is not None and linked != length:
            raise SourceError(f"{self._name}: the source announces {linked} bytes and then offers {length}")
        if linked is None and length is None and not answer.response.headers.get("Transfer-Encoding"):
            raise SourceError(f"{self._name}: the source does not say how long the file is")
        self._room(linked or length or 0)
        etag = headers.get("ETag", "")
        commit = first.get("X-Repo-Commit", "")
        self._part.restart(
            PartState(
                source=self._part.state.source,
                etag=etag if etag.startswith('"') and len(etag) <= 1024 else None,
                size=length if linked is None else linked,
                sha256=sha256,
                revision=commit if _REVISION.fullmatch(commit) else None,
            )
        )

    def _go_on(self, response: aiohttp.ClientResponse) -> None:
        state = self._part.state
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found is None or found[1] is None or int(found[1]) != self._part.length:
            raise self._start_over("the source sends another range than was asked for")
        total = _number(found[3])
        etag = response.headers.get("ETag")
        if (etag and state.etag and etag != state.etag) or (total and state.size and total != state.size):
            raise self._start_over("the file changed at the source")
        self._check_size(total)

    def _beyond_the_end(self, response: aiohttp.ClientResponse) -> None:
        """Handle 416: the source has no more bytes than are here, so they are all, or it is another file."""
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        total = _number(found[3]) if found else None
        if total != self._part.length or self._checksum() is None:
            raise self._start_over("the file at the source is shorter than what is here")
        self._check_size(total)

    def _start_over(self, reason: str) -> _InterruptedError:
        self._part.restart(PartState(source=self._part.state.source))
        return _InterruptedError(reason)

    def _check_size(self, size: int | None) -> None:
        if size is None:
            return
        if self._wanted.size is not None and size != self._wanted.size:
            raise IntegrityError(
                f"{self._name}: the source offers {size} bytes, expected {self._wanted.size}; it is another file"
            )
        if size > self._limits.size:
            raise SourceError(f"{self._name}: {size} bytes are more than the limit of {self._limits.size}")

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        part = self._part
        size = self._wanted.size or part.state.size
        async for chunk in response.content.iter_chunked(_CHUNK):
            if part.length + len(chunk) > (size or self._limits.size):
                part.discard()
                raise IntegrityError(f"{self._name}: the source sends more bytes than the file has; thrown away")
            if part.length < len(self._wanted.magic):
                self._check_magic(chunk)
            part.append(chunk)
            self._progress.total(part.length, size)
        if size is not None and part.length < size:
            raise _InterruptedError(f"it ended after {part.length} of {size} bytes")

    def _check_magic(self, chunk: bytes) -> None:
        magic = self._wanted.magic[self._part.length :]
        if chunk[: len(magic)] != magic[: len(chunk)]:
            self._part.discard()
            raise IntegrityError(
                f"{self._name}: what comes is no {self._wanted.magic[:4].decode(errors='replace')} file"
            )

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        """Return the seconds that the source asks to wait (RFC 9110, 10.2.3)."""
        value = headers.get("Retry-After", "").strip()
        seconds: float | None = None
        if _NUMBER.fullmatch(value):
            seconds = float(value)
        elif value:
            try:
                when = parsedate_to_datetime(value)
                seconds = max(0.0, (when - datetime.now(when.tzinfo or UTC)).total_seconds())
            except (ValueError, TypeError, OverflowError):
                seconds = None
        if seconds is not None and seconds > self._limits.wait:
            raise SourceError(f"{self._name}: the source asks to come back in {seconds:.0f} s; run the command then")
        return seconds


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _NUMBER.fullmatch(text) else None


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
