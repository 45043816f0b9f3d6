"""The whole of Rouse on this machine, with a real Home Assistant.

Starts the hub (with its embedded broker), a node with one expert, and Home
Assistant; sets the integration up by its config flow; asks for a light and a
question; then stays up until Ctrl-C. Ports 1883, 8100 and 8123 are used where
they are free, and others where they are not. Everything listens on loopback.
"""

import argparse
import asyncio
import contextlib
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Table

from scripts.house.appliance import MODEL, Appliance, ApplianceError
from scripts.house.home_assistant import (
    Answer,
    HomeAssistant,
    HomeAssistantError,
    home_assistant,
    wait_until_running,
)
from scripts.house.processes import free_port
from scripts.house.setup import LIGHTS, add_broker, furnish

WISH = "Turn on the kitchen light"
LIGHT = "light.kitchen_light"
QUESTION = "What is gravity?"

EXIT_CODES = """\
exit codes:
  0    the light went on, and both answers came
  1    they did not; the logs' last lines are shown
  2    the model or an option is missing or wrong
  130  stopped by Ctrl-C before the answers
"""


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.demo",
        description=__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--once", action="store_true", help="end after the two answers")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep configuration and logs in this folder")
    options = parser.parse_args()
    console = Console()
    if not MODEL.exists():
        console.print(f"[red]The model is missing:[/] {MODEL}. Run `make setup` first.")
        return 2
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rouse-demo-")))
        return asyncio.run(_run(folder.absolute(), console, once=options.once))


async def _run(folder: Path, console: Console, *, once: bool) -> int:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[int] = loop.create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, stop, number, console)
    try:
        async with AsyncExitStack() as stack:
            work = asyncio.create_task(_demonstrate(stack, folder, console, once=once))
            either: tuple[asyncio.Future[Any], ...] = work, stop
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait([work])
            if work.cancelled():
                return 128 + stop.result()
            good = work.result()
            if not once:
                await stop
    except (ApplianceError, HomeAssistantError, OSError, TimeoutError, aiohttp.ClientError) as error:
        console.print(f"[red]The demo failed:[/] {str(error) or type(error).__name__}", highlight=False)
        _print_logs(folder, console)
        return 1
    return 0 if good else 1


def _stop(stop: asyncio.Future[int], number: int, console: Console) -> None:
    if not stop.done():
        console.print("Stopping …")
        stop.set_result(number)


async def _demonstrate(stack: AsyncExitStack, folder: Path, console: Console, *, once: bool) -> bool:
    """Start everything, which lasts as long as the stack, and ask; True if the answers are good."""
    password = secrets.token_urlsafe(9)
    http = await stack.enter_async_context(aiohttp.ClientSession())
    appliance = Appliance(folder / "rouse", broker_port=free_port(1883), gateway_port=free_port(8100))
    appliance.configure()
    async with _step(console, "Hub, broker, node and expert"):
        await stack.enter_async_context(appliance.running(http))
    async with _step(console, "Home Assistant"):
        house = await stack.enter_async_context(
            home_assistant(folder / "home-assistant", port=free_port(8123), lights=LIGHTS, http=http)
        )
        await house.onboard("demo", password)
        await wait_until_running(house)
    async with _step(console, "Rouse in Home Assistant, by its config flow"):
        broker_password = appliance.secret("broker-homeassistant.password")
        await add_broker(house, port=appliance.broker_port, password=broker_password, protocol="3.1.1")
        await furnish(house)
    good = await _ask(house, console)
    if not once:
        console.print(f"\nHome Assistant: [bold]{house.url}[/]   user [bold]demo[/]   password [bold]{password}[/]")
        console.print("Press Ctrl-C to stop everything.")
    return good


async def _ask(house: HomeAssistant, console: Console) -> bool:
    before = await house.state(LIGHT)
    wish = await house.assist(WISH)
    after = await house.state(LIGHT)
    question = await house.assist(QUESTION)
    table = Table("asked", "answered", "first word", "in total", title="Through Assist, MQTT, gateway and model")
    for text, answer in ((WISH, wish), (QUESTION, question)):
        first = f"{answer.first_word:.2f} s" if answer.first_word is not None else "-"
        table.add_row(text, answer.text or f"[red]{answer.error}", first, f"{answer.total:.2f} s")
    console.print()
    console.print(table)
    console.print(
        f"Kitchen light: {before} before, [bold]{after}[/] after; tools called: {', '.join(wish.tools) or 'none'}"
    )
    return after == "on" and _is_answer(wish) and _is_answer(question)


def _is_answer(answer: Answer) -> bool:
    return answer.error is None and bool(answer.text.strip())


@asynccontextmanager
async def _step(console: Console, title: str) -> AsyncIterator[None]:
    started = time.perf_counter()
    if console.is_terminal:
        with console.status(f"{title} …"):
            yield
    else:
        console.print(f"{title} …")
        yield
    console.print(f"[green]✓[/] {title} ({time.perf_counter() - started:.1f} s)", highlight=False)


def _print_logs(folder: Path, console: Console) -> None:
    for log in sorted(folder.rglob("*.log")):
        lines = log.read_text(errors="replace").splitlines()[-8:]
        if lines:
            console.rule(log.name)
            console.print("\n".join(lines), markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
