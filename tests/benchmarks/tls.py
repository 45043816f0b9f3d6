"""What TLS and mutual TLS cost between machines: handshake, requests, first token, and a broker's connection.

The servers are processes that cost next to nothing themselves; each kind is measured in turn, many times. Of times, the
lower quartile is compared, on which other programs weigh little; processor time is of client and server together.
"""

import asyncio
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from appliance.security.ca.names import HOME_ASSISTANT
from scripts.house.mosquitto import program
from tests.benchmarks.scenario import Bound, Result, Row, Scenario, Setting
from tests.benchmarks.servers import KEY, Server, python
from tests.system.certificates.brokers import Brokers, embedded, mosquitto

KINDS = ("plain", "TLS", "mTLS")
TURNS = 8
"""By round: short ones, so that what else the machine does falls on all kinds alike."""
REQUESTS = 10
HANDSHAKES = 5
AT_ONCE = 16
"""By turn."""
PROCESSOR_REQUESTS = 600
MQTT_CONNECTIONS = 12
"""By round."""
BODY = {
    "model": "canned",
    "stream": True,
    "messages": [{"role": "user", "content": "What is the weather like in the attic today? " * 66}],
}
"""About 3 kB, as a house's prompt is."""

type Samples = dict[str, list[float]]


async def run(setting: Setting) -> Result:
    """Measure all kinds in turn."""
    folder = setting.folder / "tls"
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    data: dict[str, dict[str, float]] = {}
    spent: dict[str, Samples] = {"kept": {}, "new": {}}
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(embedded(_anew(folder / "amqtt")))
        contexts = _contexts(made, folder)
        servers = [await stack.enter_async_context(_canned(setting, folder, kind)) for kind in KINDS]
        urls = dict(zip(KINDS, (server.target.base for server in servers), strict=True))
        for what, measure in (
            ("handshake", _handshakes),
            ("first token, new connections", _first_tokens_new),
            ("first token, kept connections", _first_tokens_kept),
            (f"time of a request, {AT_ONCE} at once, new connections", _all_at_once_new),
            (f"time of a request, {AT_ONCE} at once, kept connections", _all_at_once_kept),
        ):
            found = await _in_turn(setting, urls, contexts, measure)
            data[what] = {kind: quartile(samples) for kind, samples in found.items()}
            rows += [_row(what, found, kind) for kind in KINDS[1:]]
            setting.say(f"{what}: " + ", ".join(f"{kind} {value * 1e3:.2f} ms" for kind, value in data[what].items()))
        for name, kept in (("kept", True), ("new", False)):
            for server, kind in zip(servers, KINDS, strict=True):
                spent[name][kind] = [await _processor_time(server, contexts[kind], kept=kept)]
            rows += _processor_rows(name, spent[name])
            data[f"processor time, {name} connections"] = {kind: one[0] for kind, one in spent[name].items()}
        brokers = [made]
        if program() is not None:
            brokers.append(await stack.enter_async_context(mosquitto(_anew(folder / "mosquitto"))))
        for broker in brokers:
            what = f"MQTT connection, {'amqtt' if broker is made else 'mosquitto'}"
            found = await _mqtt(broker, MQTT_CONNECTIONS * setting.rounds)
            data[what] = {kind: quartile(samples) for kind, samples in found.items()}
            rows.append(_row(what, found, "mTLS"))
            setting.say(f"{what}: " + ", ".join(f"{kind} {value * 1e3:.2f} ms" for kind, value in data[what].items()))
    return Result(rows, data={"seconds": data})


def quartile(samples: list[float]) -> float:
    """Return what a quarter of them is below."""
    return statistics.quantiles(samples, n=4)[0]


def _row(what: str, found: Samples, kind: str) -> Row:
    plain, other = quartile(found["plain"]), quartile(found[kind])
    note = f"{plain * 1e3:.2f} to {other * 1e3:.2f} ms, {len(found[kind])} times"
    return Row(f"{what}: {kind} by plain", other / plain, "x", None, note)


def _processor_rows(name: str, spent: Samples) -> list[Row]:
    rows = []
    for kind in KINDS[1:]:
        plain, other = spent["plain"][0] * 1e3, spent[kind][0] * 1e3
        must: tuple[Bound, float] | None = ("less than", 0.5) if (name, kind) == ("kept", "mTLS") else None
        what = f"{kind}: processor time added to a request, {name} connections"
        rows.append(Row(what, other - plain, "ms", must, f"{plain:.2f} to {other:.2f} ms, {PROCESSOR_REQUESTS} times"))
    return rows


def _anew(folder: Path) -> Path:
    """Return a folder for a house that is made anew in each run."""
    number = sum(1 for _ in folder.parent.glob(f"{folder.name}-*"))
    return folder.with_name(f"{folder.name}-{number}")


def _contexts(house: Brokers, folder: Path) -> dict[str, ssl.SSLContext | None]:
    """Write a node's identity for the servers, and return what the hub connects with."""
    attic = house.join("attic")
    for name, content in (
        ("chain.pem", attic.identity.chain.read_bytes()),
        ("key.pem", attic.identity.key.read_bytes()),
        ("ca.pem", attic.identity.trusted.encode()),
    ):
        (folder / name).write_bytes(content)
    house.offices.trust.prepare()
    hub = house.offices.trust.client("attic")
    bare = ssl.create_default_context(cadata=attic.identity.trusted)
    bare.check_hostname = False
    return {"plain": None, "TLS": bare, "mTLS": hub}


@asynccontextmanager
async def _canned(setting: Setting, folder: Path, kind: str) -> AsyncIterator[Server]:
    command = ["-m", "tests.benchmarks.launch_canned", "--first", "0", "--tokens", "2", "--interval", "0"]
    if kind != "plain":
        command += ["--identity", str(folder), *(["--open"] if kind == "TLS" else [])]
    async with python(setting, f"canned-{kind}", command, f"canned expert, {kind}") as server:
        yield server


type Measure = Callable[[str, ssl.SSLContext | None], Awaitable[list[float]]]


async def _in_turn(
    setting: Setting, urls: dict[str, str], contexts: dict[str, ssl.SSLContext | None], measure: Measure
) -> Samples:
    """Measure each kind in each round, in changing order."""
    found: Samples = {kind: [] for kind in KINDS}
    for turn in range(TURNS * setting.rounds):
        for kind in KINDS if turn % 2 == 0 else KINDS[::-1]:
            found[kind] += await measure(urls[kind], contexts[kind])
    return found


async def _handshakes(url: str, context: ssl.SSLContext | None) -> list[float]:
    """Return how long it takes until both sides may speak."""
    port = urlsplit(url).port
    found = []
    for _ in range(HANDSHAKES):
        begun = time.perf_counter()
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        found.append(time.perf_counter() - begun)
        writer.transport.abort()
    return found


async def _first_tokens_new(url: str, context: ssl.SSLContext | None) -> list[float]:
    async with _session(context, kept=False) as http:
        return [await _first_token(http, url) for _ in range(REQUESTS)]


async def _first_tokens_kept(url: str, context: ssl.SSLContext | None) -> list[float]:
    async with _session(context, kept=True) as http:
        await _first_token(http, url)
        return [await _first_token(http, url) for _ in range(REQUESTS)]


async def _all_at_once_new(url: str, context: ssl.SSLContext | None) -> list[float]:
    return await _all_at_once(url, context, kept=False)


async def _all_at_once_kept(url: str, context: ssl.SSLContext | None) -> list[float]:
    return await _all_at_once(url, context, kept=True)


async def _all_at_once(url: str, context: ssl.SSLContext | None, *, kept: bool) -> list[float]:
    """Return the time by the number of requests, several times: the inverse of requests a second."""
    count = 2 * REQUESTS // AT_ONCE

    async with _session(context, kept=kept) as http:

        async def client() -> None:
            for _ in range(count):
                await _first_token(http, url)

        if kept:
            await asyncio.gather(*(_first_token(http, url) for _ in range(AT_ONCE)))
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(client())
        return [(time.perf_counter() - begun) / (count * AT_ONCE)]


async def _processor_time(server: Server, context: ssl.SSLContext | None, *, kept: bool) -> float:
    """Return the processor time of a request, of both sides."""
    async with _session(context, kept=kept) as http:
        await _first_token(http, server.target.base)
        before = time.process_time() + server.processor_seconds()
        for _ in range(PROCESSOR_REQUESTS):
            await _first_token(http, server.target.base)
        return (time.process_time() + server.processor_seconds() - before) / PROCESSOR_REQUESTS


@asynccontextmanager
async def _session(context: ssl.SSLContext | None, *, kept: bool) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=not kept, ssl=context if context is not None else True)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as http:
        yield http


async def _first_token(http: aiohttp.ClientSession, url: str) -> float:
    begun = time.perf_counter()
    async with http.post(f"{url}/v1/chat/completions", json=BODY) as response:
        await response.content.readany()
        there = time.perf_counter()
        await response.read()
    return there - begun


async def _mqtt(broker: Brokers, count: int) -> Samples:
    """Connect to a broker with a password, and with a certificate besides."""
    attic = broker.join("mqtt")
    await broker.noticed()
    context = attic.context()
    found: Samples = {"plain": [], "mTLS": []}
    for _ in range(count):
        for kind in found:
            client = broker.plain(HOME_ASSISTANT) if kind == "plain" else broker.client(attic, context=context)
            begun = time.perf_counter()
            async with client:
                found[kind].append(time.perf_counter() - begun)
    return found


SCENARIO = Scenario("tls", "TLS between machines", run)
