"""An expert as a service: the engine, the HTTP server, and their life together."""

import errno
import logging
import os
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from prometheus_client.registry import Collector

from appliance.experts.backend import Backend, BackendFactory
from appliance.experts.engine.scheduler import Scheduler
from appliance.experts.errors import ModelLoadError
from appliance.experts.http.api import Admits, ExpertApi
from appliance.experts.metrics import ExpertMetrics
from appliance.experts.settings import EngineSettings
from appliance.http_server import http_runner

_log = logging.getLogger(__name__)

SWITCH_SECONDS = 0.0005
"""How long the event loop may keep the engine thread waiting for the interpreter; Python's default of 5 ms is
as long as a step of a small model."""

SPIN_COUNT = "2000"
"""How often a compute thread looks for work before it sleeps (libgomp's GOMP_SPINCOUNT). Its default of 300,000
holds a core that another process needs; not spinning at all costs an expert that is alone two thirds of its speed.
The measurements, which are noisy, are in docs/decisions/own-engine.md."""


@dataclass(frozen=True, slots=True)
class TlsAccess:
    """What an expert listens with, and whom of those that TLS lets in it answers."""

    context: ssl.SSLContext
    admits: Admits


def llama_backend(model: Path, settings: EngineSettings, tuning: Path | None = None) -> BackendFactory:
    """Return what loads a GGUF file; llama.cpp is imported only then.

    `tuning` is the folder of what the self-benchmark found. Without it, and with a number of threads in the
    settings, nothing is measured.
    """

    def load() -> Backend:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # libgomp reads it when llama.cpp is imported
        try:
            # Tests and gateways do without it.
            from appliance.experts.llama.backend import LlamaBackend  # noqa: PLC0415
            from appliance.experts.llama.memory import map_large_blocks  # noqa: PLC0415
            from appliance.experts.tuning.store import TuningStore  # noqa: PLC0415
            from appliance.experts.tuning.tune import tune  # noqa: PLC0415
        except (ImportError, OSError, RuntimeError) as error:
            raise ModelLoadError(f"llama.cpp is not usable on this machine: {error}") from error
        map_large_blocks()
        backend = LlamaBackend(model, settings)
        if tuning is not None and settings.threads is None and not settings.workers:
            try:
                tune(backend, model=model, settings=settings, store=TuningStore(tuning))
            except BaseException:
                backend.close()
                raise
        return backend

    return load


class Expert:
    """A running expert: where it listens, and its engine."""

    def __init__(self, url: str, scheduler: Scheduler) -> None:
        """Take the base URL, without a trailing slash, and the engine."""
        self.url = url
        self.scheduler = scheduler


@asynccontextmanager
async def running_expert(
    *,
    name: str,
    backend: BackendFactory,
    host: str,
    port: int | range,
    api_key: str,
    settings: EngineSettings,
    collectors: Sequence[Collector] = (),
    access: TlsAccess | None = None,
) -> AsyncIterator[Expert]:
    """Listen at once and load meanwhile; port 0 takes a free one, a range its first free one. Leaving stops gracefully.

    /health says `loading` until the model is there. `collectors` add to /metrics. With `access`, it listens with TLS
    and answers those only that may enter. `Expert.scheduler.start()` is the caller's to await. Raises OSError if the
    address can't be bound.
    """
    metrics = ExpertMetrics(name)
    for collector in collectors:
        metrics.add(collector)
    scheduler = Scheduler(backend, settings, metrics)
    api = ExpertApi(
        name=name,
        api_key=api_key,
        scheduler=scheduler,
        settings=settings,
        metrics=metrics,
        admits=access.admits if access is not None else None,
    )
    async with AsyncExitStack() as stack:
        runner = http_runner(api.application())
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await _listen(runner, host, port, access.context if access is not None else None)
        stack.push_async_callback(scheduler.stop)
        bound_host, bound_port = runner.addresses[0][:2]
        shown = f"[{bound_host}]" if ":" in bound_host else bound_host
        scheme = "http" if access is None else "https"
        yield Expert(f"{scheme}://{shown}:{bound_port}", scheduler)


async def _listen(runner: web.AppRunner, host: str, port: int | range, tls: ssl.SSLContext | None) -> None:
    ports = port if isinstance(port, range) else (port,)
    for one in ports:
        try:
            await web.TCPSite(runner, host, one, ssl_context=tls).start()
        except OSError as error:
            if error.errno != errno.EADDRINUSE or one == ports[-1]:
                raise
        else:
            return


async def serve(
    *,
    name: str,
    model: Path,
    host: str,
    port: int | range,
    api_key: str,
    settings: EngineSettings,
    ready: Callable[[Expert], None] | None = None,
    bound: Callable[[str], None] | None = None,
    backend: BackendFactory | None = None,
    tuning: Path | None = None,
    collectors: Sequence[Collector] = (),
    access: TlsAccess | None = None,
) -> None:
    """Serve a model until cancelled; then stop gracefully within `settings.drain_seconds`.

    `bound` is told the URL as soon as the port is open (/health answers then), `ready` once the model is
    loaded. `backend` replaces llama.cpp, for tests. `tuning` is the self-benchmark's folder; without one there
    is none. `collectors` add to /metrics. `access` is TLS, and who may enter.

    Raises ModelLoadError if the model can't be loaded, OSError if the address can't be bound and
    EngineBrokenError if the engine fails for good: in each case one clear line and an exit code are what is
    left to do.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    factory = backend or llama_backend(model, settings, tuning)
    async with running_expert(
        name=name,
        backend=factory,
        host=host,
        port=port,
        api_key=api_key,
        settings=settings,
        collectors=collectors,
        access=access,
    ) as expert:
        if bound is not None:
            bound(expert.url)
        await expert.scheduler.start()
        _log.info("%s serves %s at %s", name, model.name, expert.url)
        if ready is not None:
            ready(expert)
        await expert.scheduler.wait_ended()
