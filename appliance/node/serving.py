"""An expert's own process: serves the model, and talks to the daemon over its standard streams."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys

from appliance.errors import StartError
from appliance.experts.server import Expert, serve
from appliance.experts.settings import EngineSettings
from appliance.node.expert import Ready
from appliance.security.broker import secrets_folder
from appliance.security.secrets import ensure_secret
from appliance.settings.model import Settings

PR_SET_PDEATHSIG = 1


async def serve_expert(name: str, settings: Settings, *, stop: asyncio.Event, supervised: bool) -> None:
    """Serve one expert of the settings until `stop` is set.

    Once the model is loaded, one line of JSON on standard output says where (see `Ready`). With
    `supervised`, the end of standard input stops it as well.

    Raises:
        StartError: the address is taken.
        ModelLoadError: the model can't be loaded.
        EngineBrokenError: the engine failed for good.
        SecretError: the key can't be read or made.
    """
    expert = settings.experts[name]
    model = settings.paths.models / expert.model
    key = ensure_secret(secrets_folder(settings) / "expert.key")

    def ready(running: Expert) -> None:
        capabilities = ("chat", "completions", "tools", *(("embeddings",) if expert.embeddings else ()))
        line = Ready(
            url=f"{running.url}/v1",
            model=model.stem,
            context=running.scheduler.context_tokens,
            slots=expert.slots,
            capabilities=capabilities,
        ).model_dump_json()
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    if supervised:
        _end_with_parent(stop)
    serving = asyncio.create_task(
        serve(
            name=name,
            model=model,
            host=expert.host,
            port=expert.port,
            api_key=key,
            settings=_engine_settings(name, settings),
            ready=ready,
        ),
        name=f"serve {name}",
    )
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not serving.done():
            serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        try:
            await serving
        except OSError as error:
            raise StartError(f"expert {name} can't listen on {expert.host}:{expert.port}: {error}") from error


def _engine_settings(name: str, settings: Settings) -> EngineSettings:
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
        embeddings=expert.embeddings,
    )


def _end_with_parent(stop: asyncio.Event) -> None:
    """Stop when standard input closes, and be killed at once when the daemon is (prctl(2), PR_SET_PDEATHSIG)."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, read)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
