"""The servers that are measured, each in a process of its own, on the same model with the same threads."""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import aiohttp

from appliance.experts.llama import devices

KEY = "benchmark"
START_SECONDS = 60


@contextlib.asynccontextmanager
async def expert(model: Path, threads: int, slots: int) -> AsyncIterator[str]:
    """Run Rouse's expert; yield its URL."""
    settings = f'{{"threads": {threads}, "slots": {slots}, "context_tokens": 2048}}'
    command = [sys.executable, "-m", "tests.benchmarks.launch_expert", str(model), "--settings", settings]
    async with _process(command, stdout=PIPE) as process:
        if process.stdout is None:
            raise RuntimeError("The expert's output is not captured.")
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        if not line:
            raise RuntimeError("The expert ended before it was ready.")
        yield line.decode().strip()


@contextlib.asynccontextmanager
async def python_server(model: Path, threads: int, _slots: int) -> AsyncIterator[str]:
    """Run llama-cpp-python's own server; yield its URL."""
    port = _free_port()
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--n_threads", str(threads), "--n_threads_batch", str(threads)]
    command += ["--n_ctx", "2048", "--interrupt_requests", "false", "--verbose", "false"]
    async with _process(command, variables=_backend()) as process:
        yield await _answering(process, port, "/v1/models")


@contextlib.asynccontextmanager
async def llama_server(model: Path, threads: int, slots: int) -> AsyncIterator[str]:
    """Run llama.cpp's server, from ROUSE_LLAMA_SERVER or the path; yield its URL."""
    port = _free_port()
    command = [llama_server_path() or "llama-server", "--model", str(model), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--threads", str(threads), "--parallel", str(slots)]
    command += ["--ctx-size", str(2048 * slots)]
    async with _process(command) as process:
        yield await _answering(process, port, "/health")


def llama_server_path() -> str | None:
    """Return llama-server's path if it is on this machine."""
    return os.environ.get("ROUSE_LLAMA_SERVER") or shutil.which("llama-server")


def _backend() -> dict[str, str]:
    """Name the CPU backend that Rouse uses to llama_cpp.server, which doesn't look for one where it is installed."""
    variant = devices.cpu_variant()
    return {"GGML_BACKEND_PATH": str(devices.library_folder() / f"libggml-cpu-{variant}.so")} if variant else {}


@contextlib.asynccontextmanager
async def _process(
    command: Sequence[str], stdout: int = asyncio.subprocess.DEVNULL, variables: Mapping[str, str] | None = None
) -> AsyncIterator[Process]:
    environment = {**os.environ, "EXPERT_KEY": KEY, **(variables or {})}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=stdout, stderr=asyncio.subprocess.DEVNULL, env=environment
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 15)
        except TimeoutError:
            process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _answering(process: Process, port: int, path: str) -> str:
    url = f"http://127.0.0.1:{port}"
    async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession() as session:
        while process.returncode is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url + path) as response:
                    if response.ok:
                        return url
            await asyncio.sleep(0.2)
    raise RuntimeError(f"{process} ended before it answered.")
