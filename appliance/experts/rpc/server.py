"""The worker: ggml's RPC server in a thread, and beside it health and metrics over HTTP."""

import asyncio
import ctypes
import hmac
import os
import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import llama_cpp
import psutil
from aiohttp import hdrs, web
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from appliance.errors import StartError
from appliance.experts.llama import log as llama_log
from appliance.experts.llama.devices import (
    Device,
    cpu_devices,
    device,
    gpu_devices,
    load_backends,
    registry_function,
)
from appliance.experts.rpc.health import WorkerDevice, WorkerHealth
from appliance.http_server import http_runner

START_SECONDS = 10.0
POLL_SECONDS = 0.05
WATCH_SECONDS = 1.0


class RpcServer:
    """ggml's RPC server on this machine's devices. It can't be stopped: it ends with the process."""

    def __init__(self, *, host: str, port: int, threads: int) -> None:
        """Take an IPv4 address that nobody but the house's machines reaches, a port and CPU threads."""
        llama_log.capture()
        load_backends()
        self.host = host
        self.port = port
        self._handles = gpu_devices() or cpu_devices()
        self._threads = threads
        self._process = psutil.Process()
        self._thread = threading.Thread(target=self._serve, name="rpc", daemon=True)

    def _serve(self) -> None:
        start = registry_function(
            "RPC",
            "ggml_backend_rpc_start_server",
            None,
            ctypes.c_char_p,
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_size_t,
            ctypes.c_void_p,
        )
        handles = (ctypes.c_void_p * len(self._handles))(*self._handles)
        start(f"{self.host}:{self.port}".encode(), None, self._threads, len(handles), handles)

    async def start(self) -> None:
        """Start it, and return when its port accepts. Raises StartError."""
        self._thread.start()
        async with asyncio.timeout(START_SECONDS):
            while not self._connections()[0]:
                if not self._thread.is_alive():
                    raise StartError(
                        f"the RPC server can't listen on {self.host}:{self.port}: the port is taken, or the address is "
                        "not this machine's. Set rpc_worker.host and rpc_worker.rpc_port."
                    )
                await asyncio.sleep(POLL_SECONDS)

    async def ended(self) -> None:
        """Return when it serves no more, which it never should."""
        while self._connections()[0]:  # noqa: ASYNC110  # the thread is in C and sets no event
            await asyncio.sleep(WATCH_SECONDS)

    @property
    def offer(self) -> str:
        """What is lent, for people."""
        return ", ".join(device(handle).description for handle in self._handles)

    def health(self) -> WorkerHealth:
        """Return its state."""
        accepts, clients = self._connections()
        status: Literal["ok", "failed"] = "ok" if accepts else "failed"
        return WorkerHealth(
            status=status,
            rpc_port=self.port,
            llama_cpp=llama_cpp.__version__,
            clients=clients,
            memory_bytes=self._process.memory_info().rss,
            devices=tuple(_described(device(handle)) for handle in self._handles),
        )

    def _connections(self) -> tuple[bool, int]:
        """Return whether the port accepts, and how many are connected to it.

        Read from the kernel: a connection of ours would wait behind the expert that is served.
        """
        accepts, clients = False, 0
        if not self._thread.is_alive():
            return accepts, clients
        for connection in self._process.net_connections(kind="tcp4"):
            if connection.laddr and connection.laddr.port == self.port:
                accepts |= connection.status == psutil.CONN_LISTEN
                clients += connection.status == psutil.CONN_ESTABLISHED
        return accepts, clients


def _described(found: Device) -> WorkerDevice:
    return WorkerDevice(
        name=found.name[:256],
        description=found.description[:256],
        free_bytes=found.free_bytes,
        total_bytes=found.total_bytes,
    )


class WorkerApi:
    """GET /health, of which a stranger learns the status alone, and GET /metrics with the key."""

    def __init__(self, server: RpcServer, *, api_key: str) -> None:
        """Take what to tell of; `api_key` must not be empty."""
        if not api_key:
            raise ValueError("A worker needs an API key.")
        self._server = server
        self._expected = f"Bearer {api_key}".encode()

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        application = web.Application(client_max_size=1024)
        application.add_routes([web.get("/health", self.health), web.get("/metrics", self.metrics)])
        return application

    async def health(self, request: web.Request) -> web.Response:
        """Answer 200 when the RPC port accepts, else 503."""
        health = self._server.health()
        body = health.model_dump() if self._knows_key(request) else {"status": health.status}
        return web.json_response(body, status=200 if health.status == "ok" else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer in Prometheus's text format."""
        if not self._knows_key(request):
            raise web.HTTPUnauthorized(headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
        headers = {hdrs.CONTENT_TYPE: "text/plain; version=0.0.4"}
        return web.Response(body=_metrics(self._server.health()), headers=headers)

    def _knows_key(self, request: web.Request) -> bool:
        given = request.headers.get(hdrs.AUTHORIZATION, "").encode(errors="replace")
        return hmac.compare_digest(given, self._expected)


def _metrics(health: WorkerHealth) -> bytes:
    registry = CollectorRegistry()

    def gauge(name: str, text: str, value: float) -> None:
        Gauge(f"rouse_rpc_worker_{name}", text, registry=registry).set(value)

    gauge("accepting", "Whether the RPC port accepts connections", health.status == "ok")
    gauge("clients", "Experts connected to the RPC port; one is served at a time", health.clients)
    gauge("memory_bytes", "Resident memory of the worker", health.memory_bytes)
    for name, text in (("free", "Memory that a device has left"), ("total", "Memory of a device")):
        family = Gauge(f"rouse_rpc_worker_device_{name}_bytes", text, ["device"], registry=registry)
        for found in health.devices:
            family.labels(found.name).set(getattr(found, f"{name}_bytes"))
    return generate_latest(registry)


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """Where a worker listens."""

    url: str
    """Base URL of health and metrics."""
    server: RpcServer


@asynccontextmanager
async def running_worker(
    *, host: str, port: int, rpc_port: int, threads: int, api_key: str
) -> AsyncIterator[RunningWorker]:
    """Serve RPC at `rpc_port`, and health and metrics at `port` (0: a free one), until the context ends.

    The RPC server goes on until the process ends.

    Raises:
        StartError: a port is taken.
        ModelLoadError: llama.cpp was built without RPC, or has no backend for this processor.
    """
    server = RpcServer(host=host, port=rpc_port, threads=threads)
    async with AsyncExitStack() as stack:
        runner = http_runner(WorkerApi(server, api_key=api_key).application())
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise StartError(
                f"the worker can't listen on {host}:{port}: {error.strerror}. Set rpc_worker.port to a free port."
            ) from error
        await server.start()
        yield RunningWorker(f"http://{host}:{runner.addresses[0][1]}", server)


def keep_output_clean() -> int:
    """Send what ggml prints on standard output to standard error; return a descriptor of the former."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return kept
