"""Images through mtmd: the real path with a projector of random weights, so nothing is said of what it sees."""

import asyncio
import base64
import functools
import io
import random
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from appliance.experts.backend import Run
from appliance.experts.errors import InvalidRequestError, ModelLoadError
from appliance.experts.http.images import MOST_IMAGES, read_image
from appliance.experts.llama.backend import LlamaBackend
from appliance.experts.llama.projector import segments
from appliance.experts.settings import EngineSettings
from tests.unit.experts.conftest import Client, serving
from tests.unit.experts.tiny_projector import write_projector

SMOLLM2_WIDTH = 576


def png(seed: int, side: int = 48, form: str = "PNG") -> bytes:
    image = PIL.Image.frombytes("RGB", (side, side), random.Random(seed).randbytes(3 * side * side))
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def bomb() -> bytes:
    """Return a small PNG of 3,600,000,000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = (header, b"IDAT" + zlib.compress(bytes(1000)), b"IEND")
    body = b"".join(struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + body


def message(*parts: str) -> list[dict[str, Any]]:
    content = [
        {"type": "image_url", "image_url": {"url": part}} if part.startswith(("data:", "http")) else
        {"type": "text", "text": part}
        for part in parts
    ]  # fmt: skip
    return [{"role": "user", "content": content}]


def settings(projector: Path, **fields: Any) -> EngineSettings:
    return EngineSettings(
        context_tokens=1024, slots=4, threads=2, drain_seconds=1, **{"batch_tokens": 64, **fields}, projector=projector
    )


@pytest.fixture
def projector(tmp_path: Path) -> Path:
    return write_projector(tmp_path / "projector.gguf", width=SMOLLM2_WIDTH)


@pytest.fixture
async def client(model: Path, projector: Path) -> AsyncIterator[Client]:
    chosen = settings(projector)
    async with serving(lambda: LlamaBackend(model, chosen), chosen) as running:
        yield running


async def ask(client: Client, *parts: str, **fields: Any) -> dict[str, Any]:
    body = {"messages": message(*parts), "temperature": 0, "max_tokens": 8, **fields}
    status, answer = await client.post("/v1/chat/completions", body)
    assert status == 200, answer
    return dict(answer)


@pytest.mark.model
async def test_images_stand_in_the_prompt_and_the_same_image_is_shared(client: Client) -> None:
    bare = (await ask(client, "What is this? "))["usage"]["prompt_tokens"]
    first = await ask(client, "What is this? ", url(png(1)))
    assert first["usage"]["prompt_tokens"] > bare + 4
    before = first["usage"]["prompt_tokens"]
    again = await ask(client, "What is this? ", url(png(1)))
    assert again["timings"]["cache_n"] >= before - 8
    assert again["choices"][0]["message"] == first["choices"][0]["message"]
    image = client.scheduler.backend.picture(read_image(url(png(1)), "p")).tokens
    marks = next(at for at, token in enumerate(image) if token < 0)
    other = await ask(client, "What is this? ", url(png(2)))
    assert other["timings"]["cache_n"] < bare + marks
    jpeg = await ask(client, "What is this? ", url(png(1, form="JPEG"), "image/jpeg"))
    assert jpeg["timings"]["cache_n"] < bare + marks


@pytest.mark.model
async def test_however_the_prompt_is_cut_into_steps_the_answer_is_the_same(model: Path, projector: Path) -> None:
    answers = set()
    for batch in (8, 13, 512):
        chosen = settings(projector, batch_tokens=batch, embeddings=True)
        async with serving(functools.partial(LlamaBackend, model, chosen), chosen) as client:
            body = await ask(client, "Look: ", url(png(1)), " and ", url(png(2)), " Count from one to five.")
            assert (await client.post("/v1/embeddings", {"input": ["a", "b b b " * 9]}))[0] == 200
            answers.add((body["choices"][0]["message"]["content"], body["usage"]["prompt_tokens"]))
    assert len(answers) == 1


@pytest.mark.model
async def test_images_and_chats_at_the_same_time(client: Client) -> None:
    answers = await asyncio.gather(
        *(ask(client, "See ", url(png(seed % 3))) for seed in range(6)),
        *(ask(client, f"Number {number}: ", logprobs=True, n=2) for number in range(4)),
    )
    assert all(answer["choices"][0]["message"]["content"] for answer in answers)
    await client.idle()


@pytest.mark.model
async def test_hostile_images_are_refused_and_the_next_is_seen(client: Client) -> None:
    chance = random.Random(5)
    good = png(1)
    for _ in range(60):
        data = bytearray(good)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        body = {"messages": message("x", url(bytes(data[: chance.randrange(len(data))]))), "max_tokens": 1}
        status, answer = await client.post("/v1/chat/completions", body)
        assert status in (200, 400), answer
    for part in ("https://example.org/a.png", url(bomb()), "data:image/png;base64,****", "data:,x", url(b"GIF89a")):
        status, answer = await client.post("/v1/chat/completions", {"messages": message("x", part)})
        assert (status, answer["error"]["param"]) == (400, "messages.0.content.1")
    many = {"messages": message(*[url(png(1, side=8))] * (MOST_IMAGES + 1))}
    assert (await client.post("/v1/chat/completions", many))[0] == 400
    await client.idle()
    assert await ask(client, "x", url(good))


@pytest.mark.model
async def test_rows_that_are_gone_fail_the_step_alone(client: Client) -> None:
    def compute(backend: Any) -> None:
        backend.decode([Run(0, 0, [1, -5, -6], outputs=0)])

    with pytest.raises(Exception, match="rows are gone"):
        await client.scheduler.call(compute)


@pytest.mark.model
def test_projectors_that_cannot_be_served_give_one_line(model: Path, tmp_path: Path) -> None:
    narrow = write_projector(tmp_path / "narrow.gguf", width=64)
    (tmp_path / "text.gguf").write_bytes(b"hello")
    for path in (narrow, tmp_path / "text.gguf", tmp_path / "none.gguf"):
        with pytest.raises(ModelLoadError, match=r"gguf: .") as failure:
            LlamaBackend(model, settings(path))
        assert "\n" not in str(failure.value)


def test_strips_are_refused() -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (400, 3)).save(file, "PNG")
    with pytest.raises(InvalidRequestError, match="strip of 400 x 3"):
        read_image(url(file.getvalue()), "p")


def test_large_images_are_made_smaller() -> None:
    image = read_image(url(png(1, side=2500)), "p")
    assert (image.width, image.height, len(image.pixels)) == (2048, 2048, 3 * 2048 * 2048)


def test_runs_are_cut_where_images_begin_and_end() -> None:
    run = Run(2, 10, [1, 2, -5, -6, -9, 3], outputs=1)
    assert [(piece.position, list(piece.tokens), piece.outputs) for piece in segments(run)] == [
        (10, [1, 2], 0), (12, [-5, -6], 0), (14, [-9], 0), (15, [3], 1),
    ]  # fmt: skip
