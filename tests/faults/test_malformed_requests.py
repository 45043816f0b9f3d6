"""A thousand random and mutated requests to every endpoint of a running gateway and a running expert."""

import asyncio
import json
from collections import Counter

import pytest
import pytest_asyncio

from tests.faults.house import House
from tests.faults.raw_http import RawRequest, RawResponse, requests, send
from tests.fuzzing import bodies, drawn
from tests.unit.experts.good_bodies import GOOD

pytestmark = [
    pytest.mark.broker,
    pytest.mark.model,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("house", ["amqtt"], indirect=True, scope="module"),
]

COUNT = 1000
AT_ONCE = 16
PATIENCE_SECONDS = 3.0
"""A mutated request may ask for two thousand tokens: the client leaves then, which must free the slot."""
ENDPOINTS = (
    ("GET", "/health"), ("GET", "/metrics"), ("GET", "/v1/models"), ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"), ("POST", "/v1/embeddings"), ("POST", "/v1/rerank"),
)  # fmt: skip
SPARE_FILES = 20
"""Descriptors that a process may have gained, such as for idle connections."""
DOCUMENTED = {200, 400, 401, 404, 405, 413, 417, 503}
OF_HTTP_ITSELF = {0, 400}
"""What is no HTTP is refused by aiohttp, in plain text or by closing the connection."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["gateway", "expert"])
async def target(request: pytest.FixtureRequest, house: House) -> tuple[str, str]:
    """Base URL and key of a server."""
    if request.param == "gateway":
        return house.url, house.appliance.secret("gateway.key")
    status = await house.observed.until_expert("small", "ready")
    return str(status.url).removesuffix("/v1"), house.appliance.secret("expert.key")


def check(request: RawRequest, response: RawResponse | None) -> str:
    """Check an answer and return its status for the summary."""
    if response is None:
        return "client left"
    odd = request.fault in {"no HTTP", "half"} or not request.tidy
    assert response.status in (DOCUMENTED | OF_HTTP_ITSELF if odd else DOCUMENTED), (request, response)
    in_plain_text = not request.tidy and response.status in {400, 417} and response.content_type.startswith("text/")
    if response.status >= 400 and response.body and not in_plain_text:
        assert response.content_type.startswith("application/json"), (request, response)
        error = json.loads(response.body)["error"]
        assert error["message"], (request, response)
        assert set(error) >= {"message", "type", "param", "code"}, (request, response)
    return str(response.status)


@pytest.mark.parametrize(("method", "path"), ENDPOINTS, ids=[path for _, path in ENDPOINTS])
async def test_a_thousand_requests(house: House, target: tuple[str, str], method: str, path: str) -> None:
    url, key = target
    room = asyncio.Semaphore(AT_ONCE)

    async def one(request: RawRequest) -> str:
        async with room:
            return check(request, await send(url, request, patience=PATIENCE_SECONDS))

    processes = house.process("hub"), house.expert("small")
    files = [process.num_fds() for process in processes]
    chat, completion, embedding, ranking = ({**body, "model": "small"} for body in GOOD)
    good = {
        "chat/completions": (chat,), "completions": (completion,), "embeddings": (embedding,), "rerank": (ranking,),
    }.get(path.removeprefix("/v1/"), (chat, completion, embedding))  # fmt: skip
    everything = drawn(requests(method, path, bodies(good), key), COUNT)
    seen = Counter(await asyncio.gather(*(one(request) for request in everything)))
    assert seen["200"] or path in ("/v1/embeddings", "/v1/rerank"), seen
    assert seen["401"] or path == "/health", seen
    await house.until_idle()
    assert await house.answers() == "small"
    for process, before in zip(processes, files, strict=True):
        assert process.num_fds() <= before + SPARE_FILES
    for name in ("hub", "node"):
        log = house.log(name)
        assert "Traceback" not in log, log[log.find("Traceback") :][:4000]
