"""The servers that are measured, each in a process of its own, on loopback, with the same model and threads."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from appliance.benchmark.client import Target
from appliance.experts.llama import devices, log
from scripts.house.processes import child, free_port, tail
from tests.benchmarks.scenario import Setting

KEY = "benchmark"
START_SECONDS = 120
CONTEXT = 2048
OURS, LLAMA_SERVER, PYTHON_SERVER = "rouse expert", "llama-server", "llama_cpp.server"
ENVIRONMENT = {"EXPERT_KEY": KEY}


class ServerError(Exception):
    """A server did not start; its log says why."""


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs."""

    name: str
    target: Target
    process: psutil.Process

    def processor_seconds(self) -> float:
        """Return the processor time that it has used."""
        times = self.process.cpu_times()
        return times.user + times.system


type Start = Callable[[Setting, int], AbstractAsyncContextManager[Server]]


@asynccontextmanager
async def expert(setting: Setting, slots: int, **more: Any) -> AsyncIterator[Server]:
    """Run Rouse's expert; `more` are further fields of `EngineSettings`, as JSON."""
    engine = {"threads": setting.threads, "slots": slots, "context_tokens": CONTEXT, "queue_limit": 256, **more}
    command = ["-m", "tests.benchmarks.launch_expert", str(setting.model), "--settings", json.dumps(engine)]
    async with python(setting, "expert", command, OURS) as server:
        yield server


@asynccontextmanager
async def python(setting: Setting, log: str, command: list[str], name: str) -> AsyncIterator[Server]:
    """Run a module that prints its URL once it serves."""
    file = setting.folder / f"{log}-{free_port()}.log"
    file.unlink(missing_ok=True)  # an earlier run's URL would be read
    async with child([sys.executable, *command], log=file, environment=os.environ | ENVIRONMENT) as process:
        async with asyncio.timeout(START_SECONDS):
            while not (url := _first_url(file)):
                if process.returncode is not None:
                    raise ServerError(f"{name} ended before it was ready:\n{tail(file)}")
                await asyncio.sleep(0.05)
        yield Server(name, Target(url, KEY), psutil.Process(process.pid))


@asynccontextmanager
async def llama_server(setting: Setting, slots: int) -> AsyncIterator[Server]:
    """Run llama.cpp's server."""
    path = llama_server_path()
    if path is None:
        raise ServerError("llama-server is not on this machine")
    port = free_port()
    command = [path, "--model", str(setting.model), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--threads", str(setting.threads), "--parallel", str(slots), "--ctx-size", str(CONTEXT * slots)]
    async with _answering(setting, LLAMA_SERVER, command, port, "/health") as server:
        yield server


@asynccontextmanager
async def python_server(setting: Setting, _slots: int) -> AsyncIterator[Server]:
    """Run llama-cpp-python's own server, told not to abort the running request when a new one comes."""
    port = free_port()
    threads = str(setting.threads)
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(setting.model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_threads", threads, "--n_threads_batch", threads]
    command += ["--n_ctx", str(CONTEXT), "--interrupt_requests", "false", "--verbose", "false"]
    async with _answering(setting, PYTHON_SERVER, command, port, "/v1/models", **_backend()) as server:
        yield server


def llama_server_path() -> str | None:
    """Return llama-server's path, which `make bench` found, or None."""
    return os.environ.get("ROUSE_LLAMA_SERVER") or None


def _first_url(log: Path) -> str | None:
    if not log.exists():
        return None
    lines = log.read_text(errors="replace").splitlines()
    return next((line.strip() for line in lines if line.startswith(("http://", "https://"))), None)


def _backend() -> dict[str, str]:
    """Name the CPU backend that Rouse uses to llama_cpp.server, which doesn't look for one where it is installed."""
    log.capture()
    library = devices.cpu_library()
    return {"GGML_BACKEND_PATH": str(library)} if library else {}


@asynccontextmanager
async def _answering(
    setting: Setting, name: str, command: list[str], port: int, path: str, **variables: str
) -> AsyncIterator[Server]:
    log = setting.folder / f"{name}-{port}.log"
    url = f"http://127.0.0.1:{port}"
    async with child(command, log=log, environment=os.environ | variables) as process:
        async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as http:
            while not await _answers(http, url + path):
                if process.returncode is not None:
                    raise ServerError(f"{name} ended before it answered:\n{tail(log)}")
                await asyncio.sleep(0.2)
        yield Server(name, Target(url), psutil.Process(process.pid))


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.ok
    except aiohttp.ClientError:
        return False
