"""An expert's own process: serves the model, and talks to the daemon over its standard streams."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from appliance.bus.messages import Capability
from appliance.errors import StartError
from appliance.experts.rpc.watch import WorkerWatch
from appliance.experts.server import SPIN_COUNT, Expert, TlsAccess, serve
from appliance.experts.settings import EngineSettings
from appliance.node.paired import PairedNode
from appliance.node.status import is_loopback
from appliance.node.supervised import Ready, Waiting
from appliance.notify import ServiceManager
from appliance.security.layout import secret_file
from appliance.security.secrets import ensure_secret
from appliance.settings.model import Settings
from appliance.settings.section import ports_of

_log = logging.getLogger(__name__)

PR_SET_PDEATHSIG = 1
LOOPBACK_HOST = "127.0.0.1"
EVERYWHERE = "0.0.0.0"  # noqa: S104 - it asks for a certificate of the house there
TUNING = "tuning"
"""Folder under `paths.state` with what the self-benchmark found."""


async def serve_expert(
    name: str, settings: Settings, *, stop: asyncio.Event, supervised: bool, manager: ServiceManager
) -> None:
    """Serve one expert of the settings until `stop` is set.

    Once the model is loaded, one line of JSON on standard output says where (see `Ready`); while workers are
    waited for, lines say so (see `Waiting`). As a unit of systemd, it says the same as its status. With `supervised`,
    the end of standard input stops it as well.

    Raises:
        StartError: the address is taken.
        ModelLoadError: the model can't be loaded.
        EngineBrokenError: the engine failed for good.
        SecretError: the key can't be read or made.
    """
    key = ensure_secret(secret_file(settings.paths.state, "expert.key"))
    if supervised:
        end_with_parent(stop)
    if not settings.experts[name].workers:
        await unless_stopped(_serve(name, settings, key, watch=None, manager=manager), stop)
        return
    async with aiohttp.ClientSession() as http:
        watch = WorkerWatch(settings.experts[name].workers, expert=name, http=http, api_key=key)
        await unless_stopped(_serve(name, settings, key, watch=watch, manager=manager), stop)


async def _serve(
    name: str, settings: Settings, key: str, *, watch: WorkerWatch | None, manager: ServiceManager
) -> None:
    expert = settings.experts[name]
    model = settings.paths.models / expert.model
    engine = engine_settings(name, settings)
    paired = PairedNode.of(settings)
    host = expert.host or (LOOPBACK_HOST if paired is None else EVERYWHERE)
    # A firewall can't know a free port that is taken anywhere.
    port = expert.port or (0 if is_loopback(host) else ports_of(settings.node.expert_ports))

    def ready(running: Expert) -> None:
        info = running.scheduler.info
        capabilities: tuple[Capability, ...] = (
            *(("chat", "completions", "tools") if info.generates else ()),
            *(("embeddings",) if expert.embeddings and not info.ranks else ()),
            *(("rerank",) if expert.embeddings else ()),
            *(("vision",) if expert.projector else ()),
        )
        line = Ready(
            url=f"{running.url}/v1",
            model=model.stem,
            context=running.scheduler.context_tokens,
            slots=expert.slots,
            capabilities=capabilities,
        )
        _say(line)
        manager.ready(line.model_dump_json())
        beating = asyncio.create_task(manager.keep_alive(running.scheduler.beat), name="watchdog")
        stack.callback(beating.cancel)

    def wait_aloud(obstacle: str) -> None:
        _log.warning("%s", obstacle)
        line = Waiting(waiting=obstacle)
        _say(line)
        manager.status(line.model_dump_json())

    async with AsyncExitStack() as stack:
        if watch is not None:
            endpoints = await watch.until_ready(wait_aloud)
            engine = engine.model_copy(update={"workers": endpoints})
            losing = asyncio.create_task(_end_when_lost(watch), name="watch workers")
            stack.callback(losing.cancel)
        access = None
        if paired is not None:
            access = TlsAccess(paired.server.context, paired.admits)
            following = asyncio.create_task(paired.follow(), name="follow the certificate")
            stack.callback(following.cancel)
        try:
            await serve(
                name=name,
                model=model,
                host=host,
                port=port,
                api_key=key,
                settings=engine,
                ready=ready,
                tuning=settings.paths.state / TUNING,
                collectors=(watch,) if watch is not None else (),
                access=access,
            )
        except OSError as error:
            raise StartError(
                f"expert {name} can't listen on {host}:{expert.port or settings.node.expert_ports}: {error}"
            ) from error


async def _end_when_lost(watch: WorkerWatch) -> None:
    # The node's daemon and others come here without llama.cpp, and its threads read this when it is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    from appliance.experts.rpc.ending import end_clearly_when_llama_cpp_aborts, end_process  # noqa: PLC0415

    end_clearly_when_llama_cpp_aborts()
    end_process(await watch.until_lost())


def _say(line: Ready | Waiting) -> None:
    sys.stdout.write(f"{line.model_dump_json()}\n")
    sys.stdout.flush()


async def unless_stopped(work: Coroutine[Any, Any, None], stop: asyncio.Event) -> None:
    """Do something until it ends or `stop` is set, which cancels it; what it raises is raised."""
    working = asyncio.create_task(work, name="serve")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


def engine_settings(name: str, settings: Settings) -> EngineSettings:
    """Return what an expert's engine is started with; its workers' endpoints are found out later."""
    expert = settings.experts[name]
    return EngineSettings(
        context_tokens=expert.context,
        slots=expert.slots,
        threads=expert.threads or None,
        batch_tokens=expert.batch,
        queue_limit=expert.queue,
        stall_factor=expert.stall_factor,
        parked_bytes=expert.memory_for_prefixes,
        prefix_folder=settings.paths.state / "prefixes" / name,
        prefix_bytes=expert.disk_for_prefixes,
        gpu_layers=expert.gpu_layers,
        worker_layers=expert.worker_layers,
        embeddings=expert.embeddings,
        truncation=expert.truncation,
        projector=settings.paths.models / expert.projector if expert.projector else None,
    )


def end_with_parent(stop: asyncio.Event) -> None:
    """Stop when standard input closes, and be killed at once when the daemon is (prctl(2), PR_SET_PDEATHSIG)."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, read)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
