"""GET over HTTP with redirects that are followed by hand, so that no secret and no request strays.

What may be asked: https anywhere; http on loopback, or anywhere when the user says so. A redirect may not leave
https for http, and may not lead from elsewhere to this machine. `Authorization` goes to the first origin alone.
"""

import ipaddress
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from appliance.models.errors import RefusedError, SourceError

MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Target:
    """What to get."""

    url: URL
    authorization: str | None = field(default=None, repr=False)
    """Value of the Authorization header, for this URL's origin alone."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and the header fields with which the asked server itself (not where it redirects to) answered."""

    response: aiohttp.ClientResponse
    first: Mapping[str, str]


def parse_url(text: str) -> URL:
    """Parse an absolute http or https URL.

    Raises:
        RefusedError: it is none.
    """
    try:
        url = URL(text, encoded=True)
        _ = url.port
    except ValueError:
        raise RefusedError("not a URL") from None
    if url.scheme not in {"http", "https"} or not url.host:
        raise RefusedError("expected https://host/path")
    return url


def plain(url: URL) -> str:
    """Return a URL for messages and records: no user, no query (signed links carry keys there), no fragment."""
    return str(url.with_user(None).with_query(None).with_fragment(None))


def is_loopback(url: URL) -> bool:
    """Tell whether a URL is on this machine."""
    host = (url.host or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback or (mapped or address).is_unspecified


class Transport:
    """Gets URLs under the rules above."""

    def __init__(
        self, session: aiohttp.ClientSession, *, insecure: bool = False, permission: str = "--insecure-http"
    ) -> None:
        """Take the session, whether plain http is allowed anywhere, and what the user calls that permission."""
        self._session = session
        self._permission = permission
        self._insecure = insecure

    def check(self, url: URL) -> None:
        """Raise RefusedError where plain http is not allowed."""
        if url.scheme == "http" and not self._insecure and not is_loopback(url):
            raise RefusedError(f"{plain(url)}: plain http; use https, or {self._permission} if you mean it")

    @asynccontextmanager
    async def get(self, target: Target, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        """Ask, follow redirects, and yield the answer.

        Raises:
            RefusedError: a redirect leads where it must not.
            SourceError: redirects don't end.
            aiohttp.ClientError, TimeoutError: as aiohttp raises them.
        """
        url = target.url
        self.check(url)
        first: Mapping[str, str] | None = None
        for _ in range(MAX_REDIRECTS + 1):
            sent = {"Accept-Encoding": "identity", **headers}
            if target.authorization is not None and url.origin() == target.url.origin():
                sent["Authorization"] = target.authorization
            async with self._session.get(url, headers=sent, allow_redirects=False) as response:
                first = response.headers if first is None else first
                if response.status not in _REDIRECTS:
                    yield Answer(response, first)
                    return
                url = self._redirected(target.url, url, response.headers.get("Location", ""))
        raise SourceError(f"{plain(target.url)}: more than {MAX_REDIRECTS} redirects")

    def _redirected(self, start: URL, here: URL, location: str) -> URL:
        try:
            url = parse_url(str(here.join(URL(location, encoded=True))))
        except (RefusedError, ValueError):
            raise RefusedError(f"{plain(here)}: redirects to something that is no http URL") from None
        if is_loopback(url) and not is_loopback(start):
            raise RefusedError(f"{plain(here)}: redirects to this machine")
        if url.scheme == "http" and here.scheme == "https":
            raise RefusedError(f"{plain(here)}: redirects from https to plain http")
        self.check(url)
        return url
