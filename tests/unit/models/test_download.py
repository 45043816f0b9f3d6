import asyncio
import random
from email.utils import formatdate
from pathlib import Path

import pytest

from appliance.models.errors import BusyError, IntegrityError, ModelError, RefusedError, SourceError, SpaceError
from appliance.models.folder import ModelFolder
from appliance.models.transport import is_loopback, parse_url, plain
from tests.unit.models.conftest import NAME, Client
from tests.unit.models.source import Request, Source, error, gguf, redirect, running_source, send, serve


def final(client: Client) -> Path:
    return client.folder.path / NAME


async def test_a_whole_file(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good)]
    added = await client.url()
    assert final(client).read_bytes() == good
    assert (added.record.sha256, added.record.voucher, added.downloaded) == (client.sha256, "user", True)
    assert sorted(path.name for path in client.folder.path.iterdir()) == [
        ".rouse-models.json",
        ".rouse-models.lock",
        NAME,
    ]


async def test_again_asks_nobody(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good)]
    await client.url()
    assert not (await client.url()).downloaded
    assert len(source.requests) == 1


@pytest.mark.parametrize("seed", range(8))
async def test_cut_at_random_places(client: Client, source: Source, good: bytes, seed: int) -> None:
    chance = random.Random(seed)
    source.plan = [serve(good, cut=chance.randrange(1, 60_000)) for _ in range(30)]
    await client.url()
    assert final(client).read_bytes() == good
    offsets = [request.offset for request in source.requests]
    assert offsets == sorted(offsets)
    assert offsets[1] > 0
    assert all(request.headers.get("if-range") == '"one"' for request in source.requests[1:])


async def test_cut_before_every_byte_gives_up(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good, cut=1000), serve(good, cut=0)]
    with pytest.raises(SourceError, match="gave up after 4 attempts"):
        await client.url()
    assert client.part.stat().st_size == 1000
    source.plan = [serve(good)]
    await client.url()
    assert source.requests[-1].offset == 1000


async def test_cuts_without_ranges_end(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good, cut=5000, ranges=False)]
    with pytest.raises(SourceError, match="gave up"):
        await client.url()
    assert len(source.requests) <= 6


async def test_ranges_are_ignored_once(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good, cut=5000), serve(good, ranges=False)]
    await client.url()
    assert final(client).read_bytes() == good


async def test_a_stalled_connection_is_left(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good, cut=5000, hold=asyncio.Event()), serve(good)]
    await client.url()
    assert source.requests[1].offset == 5000


@pytest.mark.parametrize("lie", [-1, -299_000, 1, 100_000])
async def test_a_lie_about_the_length(client: Client, source: Source, good: bytes, lie: int) -> None:
    """Too short gives a wrong file, too long never ends: both are refused, or healed by a truthful range."""
    source.plan = [serve(good, length=len(good) + lie, ranges=False)]
    with pytest.raises((SourceError, IntegrityError)):
        await client.url()
    assert not final(client).exists()


async def test_a_length_too_long_and_a_truthful_416(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good, length=len(good) + 50)]
    await client.url()
    assert final(client).read_bytes() == good


async def test_wrong_bytes(client: Client, source: Source) -> None:
    source.plan = [serve(gguf(300_000, b"other"))]
    with pytest.raises(IntegrityError, match="expected"):
        await client.url()
    assert not final(client).exists()
    assert not client.part.exists()


async def test_wrong_bytes_in_an_earlier_part_are_healed(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(gguf(300_000, b"other"), cut=9000), serve(good)]
    await client.url()
    assert [request.offset for request in source.requests] == [0, 9000, 0]


async def test_a_web_page_is_refused_at_once(client: Client, source: Source) -> None:
    source.plan = [serve(b"<html>" * 1000)]
    with pytest.raises(IntegrityError, match="no GGUF"):
        await client.url()
    assert not client.part.exists()


async def test_the_file_changes_between_attempts(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(gguf(300_000, b"old"), cut=9000, etag='"old"'), serve(good)]
    await client.url()
    assert final(client).read_bytes() == good


async def test_the_file_changes_and_if_range_is_ignored(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(gguf(300_000, b"old"), cut=9000, etag='"old"'), serve(good, if_range=False)]
    await client.url()
    assert [request.offset for request in source.requests] == [0, 9000, 0]


async def test_without_an_etag_only_a_known_checksum_resumes(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good, cut=9000, etag=None), serve(good, etag=None)]
    await client.url()
    assert source.requests[1].offset == 9000
    assert "if-range" not in source.requests[1].headers


async def test_another_range_than_asked(client: Client, source: Source, good: bytes) -> None:
    async def shifted(request: Request, writer: asyncio.StreamWriter) -> None:
        body = good[request.offset - 10 :]
        span = f"bytes {request.offset - 10}-{len(good) - 1}/{len(good)}"
        await send(writer, 206, {"Content-Range": span, "Content-Length": len(body)}, body)

    source.plan = [serve(good, cut=9000), shifted, serve(good)]
    await client.url()
    assert final(client).read_bytes() == good


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_passing_error(client: Client, source: Source, good: bytes, status: int) -> None:
    source.plan = [error(status, Retry_After="0"), serve(good, cut=20), error(status), serve(good)]
    await client.url()
    assert final(client).read_bytes() == good


@pytest.mark.parametrize("when", ["3600", formatdate(4e9, usegmt=True)])
async def test_a_long_wait_is_said_and_not_waited(client: Client, source: Source, when: str) -> None:
    source.plan = [error(429, Retry_After=when)]
    with pytest.raises(SourceError, match="asks to come back in"):
        await client.url()
    assert len(source.requests) == 1


async def test_nonsense_in_retry_after(client: Client, source: Source, good: bytes) -> None:
    source.plan = [error(503, Retry_After="soon"), serve(good)]
    await client.url()


@pytest.mark.parametrize(
    ("status", "says"), [(401, "token"), (403, "token"), (404, "404"), (410, "410"), (206, "gave up")]
)
async def test_a_lasting_error(client: Client, source: Source, status: int, says: str) -> None:
    source.plan = [error(status)]
    with pytest.raises(SourceError, match=says):
        await client.url()


async def test_endless_data(client: Client, source: Source) -> None:
    async def endless(_: Request, writer: asyncio.StreamWriter) -> None:
        await send(writer, 200, {"Transfer-Encoding": "chunked"})
        block = gguf(65536)
        for _block in range(10_000):
            writer.write(b"10000\r\n" + block + b"\r\n")
            await writer.drain()

    source.plan = [endless]
    with pytest.raises(IntegrityError, match="more bytes"):
        await client.url()
    assert not client.part.exists()


async def test_a_chunked_answer(client: Client, source: Source, good: bytes) -> None:
    async def chunked(_: Request, writer: asyncio.StreamWriter) -> None:
        body = f"{len(good):x}\r\n".encode() + good + b"\r\n0\r\n\r\n"
        await send(writer, 200, {"Transfer-Encoding": "chunked"}, body)

    source.plan = [chunked]
    await client.url()
    assert final(client).read_bytes() == good


async def test_no_length_at_all(client: Client, source: Source, good: bytes) -> None:
    async def until_closed(_: Request, writer: asyncio.StreamWriter) -> None:
        await send(writer, 200, {}, good)

    source.plan = [until_closed]
    with pytest.raises(SourceError, match="how long"):
        await client.url()


async def test_larger_than_allowed(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good, length=10_000_001)]
    with pytest.raises(SourceError, match="limit"):
        await client.url()


async def test_compressed(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good, extra={"Content-Encoding": "gzip"})]
    with pytest.raises(SourceError, match="compressed"):
        await client.url()
    assert source.requests[0].headers["accept-encoding"] == "identity"


async def test_a_redirect_loop(client: Client, source: Source) -> None:
    source.plan = [redirect("/m.gguf")]
    with pytest.raises(SourceError, match="redirects"):
        await client.url()
    assert len(source.requests) == 6


@pytest.mark.parametrize(
    "location", ["ftp://example.org/x", "file:///etc/passwd", "", "http://", "http://[", "javascript:1"]
)
async def test_a_redirect_to_nonsense(client: Client, source: Source, location: str) -> None:
    source.plan = [redirect(location)]
    with pytest.raises(ModelError):
        await client.url()


async def test_a_redirect_to_plain_http_elsewhere(client: Client, source: Source) -> None:
    source.plan = [redirect("http://192.0.2.1/m.gguf")]
    with pytest.raises(RefusedError, match="plain http"):
        await client.url()


async def test_the_token_stays_with_its_host(client: Client, source: Source, good: bytes) -> None:
    async with running_source() as other:
        other.plan = [serve(good)]
        source.plan = [redirect(other.url + "/bytes?signature=secret")]
        adder = client.adder(token="hf_secret")
        await adder.url(parse_url(source.url + "/m.gguf"), NAME, sha256=client.sha256)
        assert source.requests[0].headers["authorization"] == "Bearer hf_secret"
        assert "authorization" not in other.requests[0].headers
    assert "secret" not in (client.folder.path / ".rouse-models.json").read_text()


async def test_a_foreign_host_gets_no_token(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good)]
    adder = client.adder(environ={"HF_ENDPOINT": "https://hub.example"}, token="hf_secret")
    await adder.url(parse_url(source.url + "/m.gguf"), NAME, sha256=client.sha256)
    assert "authorization" not in source.requests[0].headers


async def test_nobody_vouches(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good)]
    with pytest.raises(RefusedError, match="--sha256"):
        await client.url(sha256=None)
    assert not final(client).exists()
    assert not client.part.exists()
    assert (await client.url(sha256=None, unverified=True)).record.voucher == "nobody"


async def test_the_source_vouches(client: Client, source: Source, good: bytes) -> None:
    async with running_source() as other:
        other.plan = [serve(good, cut=1000), serve(good)]
        source.plan = [redirect(other.url, X_Linked_Etag=f'"{client.sha256}"', X_Linked_Size=str(len(good)))]
        added = await client.url(sha256=None)
    assert added.record.voucher == "source"


async def test_the_source_vouches_for_other_bytes(client: Client, source: Source, good: bytes) -> None:
    async with running_source() as other:
        other.plan = [serve(gguf(300_000, b"other"))]
        source.plan = [redirect(other.url, X_Linked_Etag=f'"{client.sha256}"', X_Linked_Size=str(len(good)))]
        with pytest.raises(IntegrityError, match="thrown away"):
            await client.url(sha256=None)
    assert not final(client).exists()


async def test_only_the_source_itself_can_vouch(client: Client, source: Source, good: bytes) -> None:
    async with running_source() as other:
        other.plan = [serve(good, extra={"X-Linked-Etag": f'"{client.sha256}"'})]
        source.plan = [redirect(other.url)]
        with pytest.raises(RefusedError, match="--sha256"):
            await client.url(sha256=None)


async def test_no_room(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good)]
    full = ModelFolder(client.folder.path, free=lambda _: 100_000)
    client.folder = full
    with pytest.raises(SpaceError, match="are needed"):
        await client.url()
    assert not client.part.exists()


async def test_another_file_under_the_name(client: Client, source: Source, good: bytes) -> None:
    final(client).write_bytes(good[:-1])
    with pytest.raises(RefusedError, match="is there and is not this file"):
        await client.url()
    assert not source.requests
    final(client).unlink()


async def test_a_damaged_state_begins_anew(client: Client, source: Source, good: bytes) -> None:
    client.part.write_bytes(b"x" * 500)
    client.part.with_name(client.part.name + ".json").write_bytes(b"\xff{")
    source.plan = [serve(good)]
    await client.url()
    assert source.requests[0].offset == 0


async def test_one_at_a_time(client: Client) -> None:
    with pytest.raises(BusyError), ModelFolder(client.folder.path).lock():
        pass


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.9.9.9/x", True),
        ("http://localhost./x", True),
        ("http://[::1]/x", True),
        ("http://[::ffff:127.0.0.1]/x", True),
        ("http://0.0.0.0/x", True),
        ("http://localhost.example/x", False),
        ("http://10.0.0.1/x", False),
    ],
)
def test_loopback(url: str, *, expected: bool) -> None:
    assert is_loopback(parse_url(url)) is expected


def test_urls_in_messages_carry_no_secrets() -> None:
    assert plain(parse_url("https://me:pass@example.org/a?key=1#f")) == "https://example.org/a"
