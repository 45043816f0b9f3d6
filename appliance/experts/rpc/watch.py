"""The expert's side: waits for its workers, notices when one is lost, counts both."""

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import aiohttp
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from pydantic import ValidationError

from appliance.experts.rpc.health import WorkerHealth

LLAMA_CPP = version("llama-cpp-python")
PROBE_SECONDS = 2.0
"""Time between two looks at a worker."""
PROBE_TIMEOUT_SECONDS = 3.0
MAX_FAILED_PROBES = 4
"""In a row, before a worker that does not answer counts as lost; a killed one is noticed at once by its
connection, this is for a machine that vanished."""
MAX_HEALTH_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Probe:
    """What one look at a worker found."""

    health: WorkerHealth | None
    problem: str | None
    """Why it can't be used now."""
    at: float
    """Unix time."""


class WorkerWatch(Collector):
    """The workers of one expert, and how they are; also their metrics."""

    def __init__(self, workers: Sequence[str], *, expert: str, http: aiohttp.ClientSession, api_key: str) -> None:
        """Take the addresses (`host:port`) at which the workers answer for their health, and the key they know."""
        self._workers = tuple(workers)
        self._expert = expert
        self._http = http
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._probes: dict[str, Probe] = {}

    async def until_ready(self, say: Callable[[str], None]) -> tuple[str, ...]:
        """Wait until every worker can be used and return their RPC endpoints; `say` hears each new obstacle."""
        said = None
        while True:
            probes = await self._probe_all()
            obstacles = [f"{worker}: {probe.problem}" for worker, probe in probes.items() if probe.problem]
            obstacles += [
                f"{worker}: it serves another expert"
                for worker, probe in probes.items()
                if probe.health is not None and probe.health.clients
            ]
            if not obstacles:
                return tuple(
                    f"{worker.rpartition(':')[0]}:{probe.health.rpc_port}"
                    for worker, probe in probes.items()
                    if probe.health is not None
                )
            if said != obstacles:
                said = obstacles
                say(f"waiting for workers: {'; '.join(obstacles)}")
            await asyncio.sleep(PROBE_SECONDS)

    async def until_lost(self) -> str:
        """Look at the workers until one has not answered for a while; return which, and why."""
        failed = dict.fromkeys(self._workers, 0)
        while True:
            for worker, probe in (await self._probe_all()).items():
                failed[worker] = failed[worker] + 1 if probe.problem else 0
                if failed[worker] >= MAX_FAILED_PROBES:
                    return f"the worker at {worker} is lost: {probe.problem}"
            await asyncio.sleep(PROBE_SECONDS)

    async def _probe_all(self) -> Mapping[str, Probe]:
        probes = await asyncio.gather(*(self._probe(worker) for worker in self._workers))
        self._probes = dict(zip(self._workers, probes, strict=True))
        return self._probes

    async def _probe(self, worker: str) -> Probe:
        health, problem = None, None
        try:
            health = await self._ask(worker)
            if health.status != "ok":
                problem = "its RPC server has ended"
            elif health.llama_cpp != LLAMA_CPP:
                problem = f"it runs llama.cpp of {health.llama_cpp}, this expert {LLAMA_CPP}: update both"
        except TimeoutError:
            problem = f"no answer within {PROBE_TIMEOUT_SECONDS:.0f} s"
        except aiohttp.ClientConnectorError as error:
            problem = f"can't be reached ({os.strerror(error.errno) if error.errno else 'name not found'})"
        except aiohttp.ClientError as error:
            problem = f"answers badly ({type(error).__name__})"
        except PermissionError:
            problem = "does not accept this machine's key: both need the same secrets/experts/expert.key"
        except ValueError:
            problem = "answers something that is no worker's health"
        return Probe(health, problem, time.time())

    async def _ask(self, worker: str) -> WorkerHealth:
        """Raises TimeoutError, aiohttp.ClientError, PermissionError and ValueError."""
        timeout = aiohttp.ClientTimeout(total=PROBE_TIMEOUT_SECONDS)
        url = f"http://{worker}/health"
        async with self._http.get(url, headers=self._headers, timeout=timeout, allow_redirects=False) as response:
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > MAX_HEALTH_BYTES:
                    raise ValueError("too long")
        try:
            return WorkerHealth.model_validate_json(bytes(body))
        except ValidationError as error:
            if response.status in (401, 403) or _says_status_only(bytes(body)):
                raise PermissionError from error
            raise

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of the last look."""
        up = GaugeMetricFamily(
            "rouse_expert_worker_up", "Whether a worker answered the last probe", labels=["expert", "worker"]
        )
        last = GaugeMetricFamily(
            "rouse_expert_worker_probe_timestamp_seconds", "Unix time of the last probe", labels=["expert", "worker"]
        )
        for worker, probe in self._probes.items():
            up.add_metric([self._expert, worker], float(probe.problem is None))
            last.add_metric([self._expert, worker], probe.at)
        yield from (up, last)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is to collect is not known beforehand."""
        return ()


def _says_status_only(body: bytes) -> bool:
    """Whether this is what a worker tells those who don't know its key."""
    answer = json.loads(body)
    return isinstance(answer, dict) and set(answer) == {"status"}
