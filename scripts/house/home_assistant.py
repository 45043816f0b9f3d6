"""A real Home Assistant in a folder of its own, driven as a user's browser drives it."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from scripts.house.processes import child, tail

REPOSITORY = Path(__file__).parents[2]
START_SECONDS = 180

CONFIGURATION = """\
homeassistant:
  name: Rouse
  latitude: 52.0
  longitude: 5.0
  elevation: 0
  unit_system: metric
  time_zone: UTC
  country: NL
  language: en
frontend:
config:
conversation:
assist_pipeline:
logger:
  default: warning
  logs:
    custom_components.rouse: info
template:
  - light:
{lights}"""

LIGHT = """\
      - name: {name}
        unique_id: {unique_id}
        turn_on: []
        turn_off: []
"""


HTTP = {
    "cors_allowed_origins": [],
    "login_attempts_threshold": -1,
    "ip_ban_enabled": True,
    "ssl_profile": "modern",
    "use_x_frame_options": True,
    "created_at": "2026-10-01T00:00:00+00:00",
    "error": None,
    "error_message": None,
}
"""Home Assistant's own defaults of its HTTP server."""


class HomeAssistantError(Exception):
    """Home Assistant did not do what was asked; the message holds its own words."""


class HomeAssistant:
    """A client of one Home Assistant: REST for set-up, the websocket for the rest."""

    def __init__(self, *, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url
        self._token: str | None = None

    async def onboard(self, username: str, password: str) -> None:
        """Create the owner and log in as them."""
        client_id = f"{self.url}/"
        owner = {
            "client_id": client_id,
            "name": username,
            "username": username,
            "password": password,
            "language": "en",
        }
        code = (await self.post("/api/onboarding/users", owner))["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": client_id}
        async with self._http.post(f"{self.url}/auth/token", data=form) as response:
            self._token = (await response.json())["access_token"]

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a POST and return the answer's JSON."""
        return await self._request("POST", path, body)

    async def get(self, path: str) -> Any:
        """Send a GET and return the answer's JSON."""
        return await self._request("GET", path, None)

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        async with self._http.request(method, self.url + path, json=body, headers=headers) as response:
            text = await response.text()
            if response.status >= 400:
                raise HomeAssistantError(f"{method} {path}: HTTP {response.status}: {text}")
            return json.loads(text)

    async def add_integration(self, handler: str, *steps: Mapping[str, Any]) -> Any:
        """Go through an integration's config flow by hand and return its last answer."""
        step = await self.post("/api/config/config_entries/flow", {"handler": handler, "show_advanced_options": True})
        for data in steps:
            step = await self.post(f"/api/config/config_entries/flow/{step['flow_id']}", data)
        if step["type"] != "create_entry":
            raise HomeAssistantError(f"the config flow of {handler} ended with: {step}")
        return step

    async def discovered(self, handler: str, seconds: float = 30) -> Any:
        """Wait until a discovery flow of an integration is waiting for the user, and return it."""
        async with asyncio.timeout(seconds):
            while True:
                for flow in await self.command("config_entries/flow/progress"):
                    if flow["handler"] == handler:
                        return flow
                await asyncio.sleep(0.25)

    async def state(self, entity_id: str) -> str:
        """Return an entity's state."""
        return str((await self.get(f"/api/states/{entity_id}"))["state"])

    async def wait_for_state(self, entity_id: str, *accepted: str, seconds: float = 30) -> str:
        """Wait until an entity exists and is in one of the accepted states (any but unavailable by default)."""
        state = "missing"
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        state = await self.state(entity_id)
                    except HomeAssistantError:
                        state = "missing"
                    if state in accepted or (not accepted and state not in {"missing", "unavailable"}):
                        return state
                    await asyncio.sleep(0.1)
        except TimeoutError as error:
            raise HomeAssistantError(f"{entity_id} is {state!r} after {seconds:g} s") from error

    async def command(self, kind: str, **data: Any) -> Any:
        """Send a websocket command and return its result."""
        async with self._websocket() as socket:
            await socket.send_json({"id": 1, "type": kind, **data})
            answer = await socket.receive_json(timeout=60)
            if not answer["success"]:
                raise HomeAssistantError(f"{kind}: {answer['error']}")
            return answer["result"]

    async def assist(self, text: str, *, conversation_id: str | None = None) -> "Answer":
        """Run the preferred Assist pipeline on a text and return what came out."""
        run = {
            "id": 1,
            "type": "assist_pipeline/run",
            "start_stage": "intent",
            "end_stage": "intent",
            "input": {"text": text},
            "conversation_id": conversation_id,
            "timeout": 120,
        }
        answer = Answer()
        async with self._websocket() as socket:
            started = time.perf_counter()
            await socket.send_json(run)
            while True:
                message = await socket.receive_json(timeout=130)
                if message["type"] == "result" and not message["success"]:
                    raise HomeAssistantError(f"assist: {message['error']}")
                if message["type"] == "event" and answer.take(message["event"], time.perf_counter() - started):
                    return answer

    @asynccontextmanager
    async def _websocket(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Connect and log in; one that is kept would be dropped when nobody reads its pings."""
        async with self._http.ws_connect(f"{self.url}/api/websocket", max_msg_size=0) as socket:
            await socket.receive_json(timeout=30)
            await socket.send_json({"type": "auth", "access_token": self._token})
            welcome = await socket.receive_json(timeout=30)
            if welcome["type"] != "auth_ok":
                raise HomeAssistantError(f"log-in failed: {welcome}")
            yield socket


class Answer:
    """What an Assist pipeline answered, and when; times are seconds from the request."""

    def __init__(self) -> None:
        self.text = ""
        self.streamed = ""
        self.error: str | None = None
        self.conversation_id: str | None = None
        self.tools: list[str] = []
        self.first_word: float | None = None
        self.total = 0.0
        self.chunks = 0

    def take(self, event: Mapping[str, Any], elapsed: float) -> bool:
        """Add one pipeline event; True at the end of the run."""
        data = event.get("data") or {}
        match event["type"]:
            case "intent-progress":
                delta = data.get("chat_log_delta") or {}
                content = delta.get("content")
                if content and delta.get("role") in {None, "assistant"}:
                    self.first_word = elapsed if self.first_word is None else self.first_word
                    self.streamed += content
                    self.chunks += 1
                self.tools += [call["tool_name"] for call in delta.get("tool_calls") or ()]
            case "intent-end":
                output = data["intent_output"]
                response = output["response"]
                self.text = response["speech"].get("plain", {}).get("speech", "")
                self.conversation_id = output.get("conversation_id")
                if response["response_type"] == "error":
                    self.error = str(response["data"].get("code"))
            case "error":
                self.error = f"{data.get('code')}: {data.get('message')}"
            case "run-end":
                self.total = elapsed
                return True
        return False


@asynccontextmanager
async def home_assistant(
    folder: Path, *, port: int, lights: Mapping[str, str], http: aiohttp.ClientSession
) -> AsyncIterator[HomeAssistant]:
    """Run Home Assistant with our integration until the context ends; it is up and nobody owns it yet.

    Args:
        folder: its configuration folder, made here.
        port: where it listens, on loopback.
        lights: names of template lights by unique id.
        http: for the client.
    """
    _prepare(folder, port, lights)
    log = folder / "process.log"
    command = [sys.executable, "-m", "homeassistant", "--skip-pip", "--config", str(folder)]
    async with child(command, log=log, grace=30) as process:
        house = HomeAssistant(http=http, url=f"http://127.0.0.1:{port}")
        await _until_it_answers(process, house, log)
        yield house


async def wait_until_running(house: HomeAssistant, seconds: float = START_SECONDS) -> None:
    """Wait until Home Assistant has set up its integrations; needs a log-in."""
    async with asyncio.timeout(seconds):
        while (await house.get("/api/config"))["state"] != "RUNNING":
            await asyncio.sleep(0.2)


def _prepare(folder: Path, port: int, lights: Mapping[str, str]) -> None:
    storage = folder / ".storage"
    storage.mkdir(parents=True, exist_ok=True)
    blocks = "".join(LIGHT.format(name=name, unique_id=unique_id) for unique_id, name in lights.items())
    (folder / "configuration.yaml").write_text(CONFIGURATION.format(lights=blocks))
    # The other onboarding steps would set up integrations that reach for the internet.
    _store(storage, "onboarding", 4, 1, {"done": ["core_config", "analytics", "integration"]})
    # Home Assistant takes back an address from YAML unless a user confirms it within five minutes.
    address = {**HTTP, "server_host": ["127.0.0.1"], "server_port": port}
    _store(storage, "http", 2, 2, {"stable": address, "pending": None, "yaml_migration_done": True})
    components = folder / "custom_components"
    components.mkdir(exist_ok=True)
    link = components / "rouse"
    if not link.exists():
        link.symlink_to(REPOSITORY / "custom_components" / "rouse", target_is_directory=True)


def _store(storage: Path, key: str, version: int, minor_version: int, data: Mapping[str, Any]) -> None:
    """Write what Home Assistant would have stored, before its first start."""
    document = {"version": version, "minor_version": minor_version, "key": key, "data": data}
    (storage / key).write_text(json.dumps(document))


async def _until_it_answers(process: asyncio.subprocess.Process, house: HomeAssistant, log: Path) -> None:
    try:
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                try:
                    await house.get("/api/onboarding")
                except (aiohttp.ClientError, HomeAssistantError, OSError):
                    await asyncio.sleep(0.2)
                else:
                    return
    except TimeoutError as error:
        raise HomeAssistantError(f"Home Assistant does not answer:\n{tail(log)}") from error
    raise HomeAssistantError(f"Home Assistant ended:\n{tail(log)}")
