"""A worker's own process: lends this machine to an expert elsewhere."""

import asyncio
import logging
import os

from appliance.errors import StartError
from appliance.experts.server import SPIN_COUNT
from appliance.experts.tuning.machine import usable_cores
from appliance.node.serving import end_with_parent, unless_stopped
from appliance.node.supervised import Ready
from appliance.notify import ServiceManager
from appliance.security.layout import secret_file
from appliance.security.secrets import ensure_secret
from appliance.settings.model import Settings

_log = logging.getLogger(__name__)


async def serve_worker(settings: Settings, *, stop: asyncio.Event, supervised: bool, manager: ServiceManager) -> None:
    """Serve RPC until `stop` is set; then the process must end, because ggml's server goes on.

    Once it listens, one line of JSON on standard output says where its health is (see `Ready`), and as a unit of
    systemd it says the same as its status. With `supervised`, the end of standard input stops it as well.

    Raises:
        StartError: a port is taken, or the RPC server ended by itself.
        ModelLoadError: llama.cpp was built without RPC, or has no backend for this processor.
        SecretError: the key can't be read or made.
    """
    if supervised:
        end_with_parent(stop)
    await unless_stopped(_serve(settings, manager), stop)


async def _serve(settings: Settings, manager: ServiceManager) -> None:
    # The other commands do without llama.cpp, and its threads read this when it is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    from appliance.experts.rpc.server import keep_output_clean, running_worker  # noqa: PLC0415

    output = keep_output_clean()
    worker = settings.rpc_worker
    async with running_worker(
        host=worker.host,
        port=worker.port,
        rpc_port=worker.rpc_port,
        threads=worker.threads or usable_cores(),
        api_key=ensure_secret(secret_file(settings.paths.state, "expert.key")),
    ) as running:
        _log.info("lending %s to experts at %s:%d", running.server.offer, worker.host, worker.rpc_port)
        line = Ready(url=running.url).model_dump_json()
        os.write(output, f"{line}\n".encode())
        manager.ready(line)
        await running.server.ended()
        raise StartError("ggml's RPC server ended; its last lines above say why")
