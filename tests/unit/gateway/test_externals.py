"""Servers that are not the house's own, their keys, and probes."""

import asyncio
import json
import ssl
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import pytest
import trustme
from aiohttp import web
from pydantic import ValidationError

from appliance.errors import StartError
from appliance.gateway.externals import external_experts
from appliance.security.secrets import SecretError
from appliance.settings.model import ExternalSettings
from scripts.house.processes import free_port
from tests.unit.gateway.conftest import KEY, Gateway, Start, answers, serve, text_of, whole

HEADERS = {"Authorization": f"Bearer {KEY}"}


class Server:
    """Somebody else's server, which can be stopped and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.asked: list[tuple[str, str | None]] = []
        self.models: list[str] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._list)
        app.router.add_get("/health", self._list)
        app.router.add_post("/v1/chat/completions", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=tls).start()

    async def stop(self) -> None:
        await self._stack.aclose()

    async def _list(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers.get("Authorization")))
        return web.json_response({"data": []})

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers.get("Authorization")))
        self.models.append((await request.json())["model"])
        return web.json_response(whole("external"), headers={"Set-Cookie": "who=you"})


async def state_of(gateway: Gateway, expert: str) -> str:
    async with gateway.http.get(f"{gateway.url}/health", headers=HEADERS) as response:
        return str({one["expert"]: one["state"] for one in (await response.json())["endpoints"]}[expert])


async def until_state(gateway: Gateway, expert: str, state: str) -> None:
    async with asyncio.timeout(10):
        while await state_of(gateway, expert) != state:
            await asyncio.sleep(0.02)


async def test_it_answers_under_its_own_name_with_its_own_key(start: Start) -> None:
    async with Server() as server:
        cloud = {"url": server.url, "model": "big-70b", "key": "sk-secret"}
        gateway = await start(externals={"cloud": cloud})
        async with gateway.post(model="cloud") as response:
            assert await text_of(response) == "external"
            assert response.headers["X-Rouse-Node"] == "external"
            assert "Set-Cookie" not in response.headers
    assert server.asked == [("/v1/chat/completions", "Bearer sk-secret")]
    assert server.models == ["big-70b"]


async def test_the_houses_own_experts_never_see_its_key_nor_it_theirs(start: Start) -> None:
    async with Server() as server:
        gateway = await start(externals={"cloud": {"url": server.url}}, fallbacks=["cloud"])
        await gateway.add("small", answers("broken", 500))  # asserts that it gets the house's own key
        async with gateway.post(model="small") as response:
            assert await text_of(response) == "external"
    assert server.asked == [("/v1/chat/completions", None)]


async def test_a_node_can_not_pretend_to_be_external(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async with Server() as server, Server() as thief:
        gateway = await start(externals={"cloud": {"url": server.url, "key": "sk-secret"}})
        await gateway.announce("cloud", thief.url, node="external")
        async with gateway.post(model="cloud") as response:
            assert response.status == 200
    assert thief.asked == []
    assert "which no node may" in caplog.text


async def test_it_comes_after_the_houses_own_unless_it_is_ranked(start: Start) -> None:
    async with Server() as server:
        gateway = await start(externals={"a": {"url": server.url}})
        await gateway.add("b", answers("own"))
        async with gateway.post() as response:
            assert await text_of(response) == "own"
        async with gateway.post(tools=[{"type": "function"}]) as response:
            assert await text_of(response) == "own"


async def test_a_dead_one_is_noticed_and_comes_back_without_a_request(start: Start) -> None:
    async with Server() as server:
        external = {"url": server.url, "key": "k", "health": "/health"}
        gateway = await start(externals={"cloud": external}, probe_interval=0.2)
        async with gateway.post(model="cloud") as response:
            assert response.status == 200
        await server.stop()
        await until_state(gateway, "cloud", "open")
        await server.start()
        await until_state(gateway, "cloud", "half-open")
        async with gateway.post(model="cloud") as response:
            assert response.status == 200
        assert await state_of(gateway, "cloud") == "closed"
    assert ("/health", "Bearer k") in server.asked
    assert server.models == ["cloud", "cloud"]


async def test_one_that_was_never_there_is_known_to_be_dead(start: Start) -> None:
    gateway = await start(externals={"cloud": {"url": f"http://127.0.0.1:{free_port()}/v1"}}, probe_interval=0.05)
    await until_state(gateway, "cloud", "open")


async def test_https_is_checked_against_its_own_certificates(start: Start, tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    server = Server()
    await server.start(context)
    try:
        url = f"https://127.0.0.1:{server.port}/v1"
        gateway = await start(externals={"good": {"url": url, "ca_file": tmp_path / "ca.pem"}, "bad": {"url": url}})
        async with gateway.post(model="good") as response:
            assert await text_of(response) == "external"
        async with gateway.post(model="bad") as response:
            told = (await response.json())["rouse"]
        assert told["expert"] == "good"
        assert "certificate" in told["attempts"][0]["outcome"]
    finally:
        await server.stop()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"url": "ftp://host/v1"}, "expected http://host"),
        ({"url": "http://"}, "expected http://host"),
        ({"url": "http://host:99999/v1"}, "expected http://host"),
        ({"url": "http://host/v1?key=1"}, "expected http://host"),
        ({"url": "http://user:word@host/v1"}, "must not hold a user or password"),
        ({"url": "http://host/v1", "key": "a\nb"}, "must be printable ASCII"),
        ({"url": "http://host/v1", "key": "a", "key_file": "b"}, "set key or key_file, not both"),
        ({"url": "http://host/v1", "health": "health"}, "begins with /"),
        ({"url": "http://host/v1", "health": "/x y"}, "begins with /"),
    ],
)
def test_wrong_settings_are_said(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ExternalSettings.model_validate(wrong)


def test_keys_and_certificates_that_can_not_be_read(tmp_path: Path) -> None:
    def read(**settings: Any) -> None:
        external_experts({"cloud": ExternalSettings.model_validate({"url": "https://host/v1", **settings})})

    (tmp_path / "key").write_text("k\u00e9y\n")
    with pytest.raises(SecretError, match="printable ASCII"):
        read(key_file=tmp_path / "key")
    with pytest.raises(SecretError, match="can't be read"):
        read(key_file=tmp_path / "none")
    with pytest.raises(StartError, match=r"gateway\.externals\.cloud\.ca_file"):
        read(ca_file=tmp_path / "none")


def test_a_key_is_not_shown() -> None:
    [external] = external_experts(
        {"x": ExternalSettings.model_validate({"url": "http://h/v1", "key": "sk-1"})}
    ).values()
    assert "sk-1" not in repr(external)
    assert external.access.probe_url == "http://h/v1/models"


async def test_a_key_that_a_server_repeats_is_not_passed_on(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "Incorrect API key: sk-secret."}}, status=401)

    async with AsyncExitStack() as stack:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", refuse)
        gateway = await start(externals={"cloud": {"url": f"{await serve(app, stack)}/v1", "key": "sk-secret"}})
        async with gateway.post(model="cloud") as response:
            text = await response.text()
    assert "cloud on external: HTTP 401: Incorrect API key: \u2026." in json.loads(text)["error"]["message"]
    assert "sk-secret" not in text + caplog.text
