"""The embedded broker in a process of its own; prints its port, and before that what the process takes without it."""

import asyncio
import os

from appliance.bus.client import Bus  # noqa: F401  # what the hub has loaded anyway
from appliance.gateway.service import running_gateway  # noqa: F401
from tests.benchmarks.processes import memory_of


async def _serve() -> None:
    before = memory_of(os.getpid())
    from appliance.bus.broker import Account, EmbeddedBroker  # noqa: PLC0415  # what it loads is a part of its price

    async with EmbeddedBroker(host="127.0.0.1", port=0, accounts={"rouse": Account(os.environ["PASSWORD"])}) as broker:
        print(before, broker.port, flush=True)  # noqa: T201  # this is its interface
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
