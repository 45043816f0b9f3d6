"""llama.cpp's own servers as experts that are not the house's: the one in C++ and the one in Python."""

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from appliance.experts.llama import devices
from scripts.house.appliance import MODEL, REPOSITORY
from scripts.house.processes import child, tail

KEY = "key-of-another-server"
START_SECONDS = 90


def llama_server() -> str | None:
    """Return the path of llama-server, or None if it can't be had here."""
    found = os.environ.get("ROUSE_LLAMA_SERVER") or shutil.which("llama-server")
    script = REPOSITORY / "scripts" / "llama-server"
    if found is not None or not script.exists():
        return found
    done = subprocess.run([str(script)], capture_output=True, text=True, check=False, timeout=600)
    return done.stdout.strip() or None if done.returncode == 0 else None


def cpp_command(program: str, port: int) -> list[str]:
    """Return what starts llama-server."""
    command = [program, "--model", str(MODEL), "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY]
    return [*command, "--threads", "2", "--parallel", "2", "--ctx-size", "1024", "--no-warmup", "--slots"]


def python_command(port: int) -> list[str]:
    """Return what starts llama-cpp-python's server."""
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(MODEL), "--host", "127.0.0.1"]
    return [*command, "--port", str(port), "--api_key", KEY, "--n_threads", "2", "--n_ctx", "512"]


@asynccontextmanager
async def running(command: Sequence[str], port: int, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a server until the context ends; it lists its models before the context begins."""
    library = devices.cpu_library()
    environment = os.environ | ({"GGML_BACKEND_PATH": str(library)} if library else {})
    async with child(command, log=log, environment=environment) as process, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {KEY}"}
        try:
            async with asyncio.timeout(START_SECONDS):
                while process.returncode is None:
                    with contextlib.suppress(aiohttp.ClientError):
                        async with http.get(f"http://127.0.0.1:{port}/v1/models", headers=headers) as response:
                            if response.ok:
                                break
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"it does not answer: {tail(log)}") from None
        assert process.returncode is None, tail(log)
        yield process
