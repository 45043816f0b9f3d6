"""A client of OCI registries: uploads what is missing, in pieces, and goes on where a broken connection left off.

OCI Distribution Specification 1.1 (https://github.com/opencontainers/distribution-spec), "Pushing"; the token flow is
that of the Distribution project (https://distribution.github.io/distribution/spec/auth/token/).
docs/decisions/registry-client.md says why it is our own.
"""

import asyncio
import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import aiohttp
from yarl import URL

from image_build.errors import RegistryError
from image_build.oci import Blob

_CHUNK = 8 << 20
_TRIES = 5
_MOST_ANSWER = 1 << 20
_CHALLENGE = re.compile(r'([a-z]+)="([^"]*)"')
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_REFERENCE = re.compile(
    r"(?P<host>[a-z0-9.-]+(?::[0-9]{1,5})?)/(?P<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)", re.IGNORECASE
)

type OnBytes = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Name and password at a registry."""

    username: str
    password: str = field(repr=False)

    def header(self) -> str:
        """Return the header `Authorization` of HTTP's Basic authentication (RFC 7617)."""
        return f"Basic {base64.b64encode(f'{self.username}:{self.password}'.encode()).decode()}"


@dataclass(frozen=True, slots=True)
class Target:
    """A repository of a registry."""

    host: str
    repository: str

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Parse `host[:port]/repository`.

        Raises:
            RegistryError: it is something else.
        """
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise RegistryError(f"{text!r} is no registry and repository, such as registry.example.org/rouse")
        return cls(found["host"], found["repository"].lower())


class Registry:
    """One repository of a registry.

    Args:
        http: session.
        target: registry and repository.
        plain_http: without TLS.
        credentials: for a registry that wants some.
        pause: seconds before the first repetition; each further one waits twice as long.
    """

    def __init__(
        self,
        http: aiohttp.ClientSession,
        target: Target,
        *,
        plain_http: bool = False,
        credentials: Credentials | None = None,
        pause: float = 1.0,
    ) -> None:
        self._http = http
        self._target = target
        self._credentials = credentials
        self._pause = pause
        self._base = URL(f"{'http' if plain_http else 'https'}://{target.host}/v2/{target.repository}/")
        self._authorization: str | None = None

    async def has_blob(self, digest: str) -> bool:
        """Tell whether the registry has a blob.

        Raises:
            RegistryError: it can't be asked.
        """
        status, _, _ = await self._ask("HEAD", self._base / "blobs" / f"sha256:{digest}", {200, 404})
        return status == 200

    async def push_blob(self, file: BinaryIO, blob: Blob, on_bytes: OnBytes) -> None:
        """Upload a file, piece by piece, unless it is there.

        Args:
            file: what is uploaded.
            blob: its digest and size.
            on_bytes: gets how many bytes the registry has, again and again.

        Raises:
            RegistryError: it can't be uploaded, or is not what its digest says.
        """
        if await self.has_blob(blob.digest):
            on_bytes(blob.size)
            return
        location = await self._begin()
        sent, failures = 0, 0
        while sent < blob.size:
            try:
                location, sent = await self._send_chunk(file, location, sent)
                failures = 0
            except _InterruptedError as error:
                failures += 1
                if failures >= _TRIES:
                    raise RegistryError(f"{self._named()} breaks off again and again: {error}") from error
                await asyncio.sleep(self._pause * 2 ** (failures - 1))
                location, sent = await self._progress(location)
            on_bytes(sent)
        _, headers, _ = await self._ask("PUT", location.update_query(digest=f"sha256:{blob.digest}"), {201})
        answered = headers.get("Docker-Content-Digest", f"sha256:{blob.digest}")
        if answered != f"sha256:{blob.digest}":
            raise RegistryError(f"{self._named()} has stored a file as {answered}, which is not what was sent")

    async def push_manifest(self, data: bytes, kind: str, tag: str) -> str:
        """Upload a manifest under a tag; return its digest.

        Raises:
            RegistryError: it is refused.
        """
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        headers = {"Content-Type": kind}
        await self._ask("PUT", self._base / "manifests" / tag, {201}, data=data, headers=headers)
        _, _, stored = await self._ask("GET", self._base / "manifests" / tag, {200}, headers={"Accept": kind})
        if stored != data:
            raise RegistryError(f"{self._named()} gives back another manifest under {tag!r} than it was given")
        return digest

    async def _send_chunk(self, file: BinaryIO, location: URL, start: int) -> tuple[URL, int]:
        """Send the next piece; return where to go on."""

        def read() -> bytes:
            file.seek(start)
            return file.read(_CHUNK)

        data = await asyncio.to_thread(read)
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{start}-{start + len(data) - 1}",
        }
        status, answered, _ = await self._ask("PATCH", location, {202, 416}, data=data, headers=headers, once=True)
        if status == 416:
            raise _InterruptedError("it has another part than was thought")
        return self._location(answered), _reached(answered, start + len(data))

    async def _begin(self) -> URL:
        """Begin an upload; return where it goes."""
        _, headers, _ = await self._ask("POST", self._base / "blobs" / "uploads" / "", {202})
        return self._location(headers)

    async def _progress(self, location: URL) -> tuple[URL, int]:
        """Ask how much of an upload the registry has.

        Distribution (docker-registry) drops an upload of which a piece came in part; then it begins anew.
        """
        status, headers, _ = await self._ask("GET", location, {204, 404})
        if status == 404:
            return await self._begin(), 0
        return self._location(headers, location), _reached(headers, 0)

    def _location(self, headers: Mapping[str, str], before: URL | None = None) -> URL:
        """Return where an upload goes on.

        Raises:
            RegistryError: the answer does not say, or names another server.
        """
        text = headers.get("Location")
        if text is None and before is not None:
            return before
        try:
            found = self._base.join(URL(text or "", encoded=True))
        except ValueError as error:
            raise RegistryError(f"{self._named()} names no place to upload to: {text!r}") from error
        if text is None or found.host is None:
            raise RegistryError(f"{self._named()} does not say where to upload to")
        if found.origin() != self._base.origin() and self._authorization is not None:
            # The password belongs to this server alone.
            raise RegistryError(f"{self._named()} sends uploads to another server, {found.host}")
        return found

    async def _ask(
        self,
        method: str,
        url: URL,
        good: set[int],
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        once: bool = False,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Ask, log in if that is wanted, and repeat what failed for a passing reason.

        Raises:
            RegistryError: the answer is not one of the good ones.
            _InterruptedError: the connection broke, and it is not to be repeated.
        """
        for attempt in range(1 if once else _TRIES):
            if attempt:
                await asyncio.sleep(self._pause * 2 ** (attempt - 1))
            try:
                status, answered, body = await self._exchange(method, url, data, headers)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if once:
                    raise _InterruptedError(str(error) or type(error).__name__) from error
                if attempt == _TRIES - 1 or isinstance(error, aiohttp.ClientSSLError | aiohttp.InvalidURL):
                    raise RegistryError(f"{self._named()} can't be reached: {error or type(error).__name__}") from error
                continue
            if status in good:
                return status, answered, body
            if status < 500 and status != 429:
                raise RegistryError(self._refused(method, url, status, body))
            if once:
                raise _InterruptedError(f"it answers {status}")
        raise RegistryError(self._refused(method, url, status, body))

    async def _exchange(
        self, method: str, url: URL, data: bytes | None, headers: Mapping[str, str] | None
    ) -> tuple[int, Mapping[str, str], bytes]:
        for retry in (False, True):
            sent = dict(headers or {})
            if self._authorization is not None:
                sent["Authorization"] = self._authorization
            content = None if data is None else io.BytesIO(data)
            async with self._http.request(method, url, data=content, headers=sent, allow_redirects=False) as answer:
                body = await answer.content.read(_MOST_ANSWER)
                if answer.status != 401 or retry or self._credentials is None:
                    return answer.status, answer.headers, body
                challenge = answer.headers.get("WWW-Authenticate", "")
            await self._log_in(challenge, self._credentials)
        raise AssertionError("unreachable")

    async def _log_in(self, challenge: str, credentials: Credentials) -> None:
        """Answer a registry's challenge: Basic, or Bearer with a token from where it says."""
        scheme = challenge.partition(" ")[0].lower()
        if scheme == "basic":
            self._authorization = credentials.header()
            return
        fields = dict(_CHALLENGE.findall(challenge))
        if scheme != "bearer" or "realm" not in fields:
            raise RegistryError(f"{self._named()} wants a log-in that is not known: {challenge[:200]!r}")
        realm = URL(fields["realm"])
        if realm.scheme not in {self._base.scheme, "https"}:
            raise RegistryError(f"{self._named()} wants the password sent to {realm.scheme}://{realm.host} without TLS")
        query = {
            "service": fields.get("service", ""),
            "scope": fields.get("scope", f"repository:{self._target.repository}:pull,push"),
        }
        headers = {"Authorization": credentials.header()}
        async with self._http.get(realm, params=query, headers=headers, allow_redirects=False) as answer:
            body = await answer.content.read(_MOST_ANSWER)
        token = _document(body) if answer.status == 200 else {}
        found = token.get("token") or token.get("access_token")
        if not isinstance(found, str):
            raise RegistryError(f"{self._named()} gives no token for {credentials.username!r} ({answer.status})")
        self._authorization = f"Bearer {found}"

    def _named(self) -> str:
        return f"the registry {self._target.host}"

    def _refused(self, method: str, url: URL, status: int, body: bytes) -> str:
        reasons = _document(body).get("errors")
        said = "; ".join(
            f"{reason.get('code', '')} {reason.get('message', '')}".strip()
            for reason in (reasons if isinstance(reasons, list) else [])
            if isinstance(reason, dict)
        )
        if status == 401:
            hint = "name and password are wrong" if self._credentials else "it wants a name and a password"
            return f"{self._named()} does not let you in: {hint}"
        if status == 403:
            return f"{self._named()} does not let you write to {self._target.repository}"
        return f"{self._named()} answers {method} {url.path} with {status}{f' ({said[:300]})' if said else ''}"


class _InterruptedError(Exception):
    """An upload broke off; it can go on."""


def _reached(headers: Mapping[str, str], otherwise: int) -> int:
    """Return how many bytes of an upload the registry has, as its header `Range` says."""
    found = _RANGE.fullmatch(headers.get("Range", ""))
    if found is None:
        return otherwise
    last = int(found[1])
    # "0-0" is what a registry says of an upload that has nothing yet.
    return last + 1 if last else 0


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
