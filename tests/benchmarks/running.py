"""What both commands of this package share: where things are, and an end that leaves no server behind."""

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

MODEL = Path("build/models/SmolLM2-135M-Instruct.Q4_1.gguf")
FOLDER = Path("build/bench")


async def until_told[T](work: Coroutine[Any, Any, T]) -> T:
    """Run something; SIGTERM cancels it as Ctrl-C does, so that it ends the processes that it started.

    Raises:
        KeyboardInterrupt: SIGTERM came.
    """
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await task
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
