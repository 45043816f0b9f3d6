"""Serve a model in a process of its own until it is told to stop, for benchmarks and tests.

The API key is read from the environment; the URL is printed as one line once the model is loaded.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

from appliance.experts.errors import ExpertError
from appliance.experts.server import serve
from appliance.experts.settings import EngineSettings


async def _run(arguments: argparse.Namespace) -> None:
    task = asyncio.ensure_future(
        serve(
            name="bench",
            model=arguments.model,
            host="127.0.0.1",
            port=0,
            api_key=os.environ["EXPERT_KEY"],
            settings=EngineSettings.model_validate_json(arguments.settings),
            ready=lambda expert: print(expert.url, flush=True),  # noqa: T201  # this is its interface
        )
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


def main() -> None:
    """Run the expert."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--settings", default="{}", help="EngineSettings as JSON")
    try:
        asyncio.run(_run(parser.parse_args()))
    except ExpertError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
