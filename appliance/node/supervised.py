"""An expert as the daemon sees it, whoever starts it: its state, its load, and what is said of it on the bus."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
from pydantic import BaseModel, TypeAdapter

from appliance.bus.messages import Capability, ExpertStatus

_log = logging.getLogger(__name__)

PROBE_TIMEOUT_SECONDS = 5.0

type ExpertState = Literal["starting", "ready", "failed", "stopped"]
EXPERT_STATES: tuple[ExpertState, ...] = ("starting", "ready", "failed", "stopped")


class Ready(BaseModel):
    """What an expert says when its model is loaded, and a worker, which has none, when it listens."""

    url: str
    model: str | None = None
    context: int | None = None
    slots: int | None = None
    capabilities: tuple[Capability, ...] = ()


class Waiting(BaseModel):
    """What an expert says while something keeps it from loading its model."""

    waiting: str


LINE: TypeAdapter[Ready | Waiting] = TypeAdapter(Ready | Waiting)
"""What an expert says, as one line of JSON: on its standard output to the daemon, or as its status to systemd."""


@dataclass(frozen=True, slots=True)
class ExpertLoad:
    """What one or several experts are doing; tokens count from the start of their processes."""

    active: int = 0
    queued: int = 0
    generated_tokens: int = 0

    def __add__(self, other: "ExpertLoad") -> "ExpertLoad":
        return ExpertLoad(
            self.active + other.active,
            self.queued + other.queued,
            self.generated_tokens + other.generated_tokens,
        )


@dataclass(frozen=True, slots=True)
class Activity:
    """What keeps a machine awake, as an expert tells it."""

    active: int
    queued: int
    clients: int
    """Of a worker, the experts elsewhere that it holds layers for."""
    idle: float | None
    """Seconds since the last request ended, 0 while there is one, by CLOCK_MONOTONIC; None where it does not say."""


type Report = Callable[[ExpertStatus], Awaitable[None]]


class SupervisedExpert(ABC):
    """What is common to all ways of supervision; `run` is for the subclass."""

    def __init__(
        self,
        *,
        name: str,
        node: str,
        http: aiohttp.ClientSession,
        report: Report,
        advertise: Callable[[str], str] = lambda url: url,
        key: str = "",
    ) -> None:
        """Take `advertise`, which turns the expert's own URL into one that others reach, and the experts' key."""
        self._name = name
        self._node = node
        self._http = http
        self._report = report
        self._advertise = advertise
        self._authorization = {"Authorization": f"Bearer {key}"} if key else {}
        self._restarts = 0
        self._state: ExpertState = "starting"
        self._url: str | None = None
        self._load = ExpertLoad()
        self._finished_tokens = 0

    @property
    def name(self) -> str:
        """Its name in the settings."""
        return self._name

    @property
    def state(self) -> ExpertState:
        """What was last said of it on the bus."""
        return self._state

    @property
    def restarts(self) -> int:
        """How often it was started again."""
        return self._restarts

    @property
    def load(self) -> ExpertLoad:
        """What the expert is doing; its tokens are those of all its processes so far."""
        return self._load + ExpertLoad(generated_tokens=self._finished_tokens)

    @abstractmethod
    async def run(self) -> None:
        """Keep it running until cancelled, and report each change of its state."""

    async def activity(self) -> Activity | None:
        """Ask a ready expert what it is doing; None if it is not ready, or does not answer."""
        if self._url is None:
            return None
        try:
            body = await self._health(self._url)
            return Activity(
                active=int(body.get("active", 0)),
                queued=int(body.get("queued", 0)),
                clients=int(body.get("clients", 0)),
                idle=max(0.0, float(body["idle_seconds"])) if "idle_seconds" in body else None,
            )
        except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, AttributeError):
            return None

    async def save_prefixes(self) -> bool:
        """Have it write to disk what would be lost with its memory; whether it has done so."""
        if self._url is None:
            return True
        url = self._url.removesuffix("/v1") + "/prefixes/save"
        try:
            async with self._http.post(url, headers=self._authorization) as response:
                if response.status == 200:
                    return True
                _log.warning("expert %s did not save its prefixes: HTTP %d", self._name, response.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            _log.warning("expert %s did not save its prefixes: %s", self._name, error or type(error).__name__)
        return False

    async def _probe(self, url: str) -> bool:
        try:
            body = await self._health(url)
            self._load = ExpertLoad(
                active=int(body.get("active", 0)),
                queued=int(body.get("queued", 0)),
                generated_tokens=int(body.get("generated_tokens", 0)),
            )
        except (aiohttp.ClientError, TimeoutError, ValueError, TypeError, AttributeError):
            return False
        return True

    async def _health(self, url: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_SECONDS)
        health = url.removesuffix("/v1") + "/health"
        async with self._http.get(health, timeout=timeout, headers=self._authorization) as response:
            return await response.json()

    def _forget_process(self) -> None:
        """Note that a process has ended; what it generated stays counted."""
        self._finished_tokens += self._load.generated_tokens
        self._load = ExpertLoad()
        self._url = None

    async def _say(self, state: ExpertState, *, ready: Ready | None = None, error: str | None = None) -> None:
        self._state = state
        self._url = ready.url if ready is not None else None
        details: dict[str, Any] = {}
        if ready is not None:
            details = {**ready.model_dump(), "url": self._advertise(ready.url)}
        status = {
            "expert": self._name,
            "node": self._node,
            "state": state,
            "error": error,
            "restarts": self._restarts,
        }
        await self._report(ExpertStatus.model_validate({**details, **status}))
