"""`make demo`: the whole of Rouse on this machine, with a real Home Assistant.

Starts the hub (with its embedded broker), a node with one expert, and Home Assistant; sets the
integration up by its config flow; asks for a light and a question; then stays up until Ctrl-C.
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

import aiohttp
from rich.console import Console
from rich.table import Table

from scripts.house.appliance import MODEL, Appliance
from scripts.house.home_assistant import (
    Answer,
    HomeAssistant,
    HomeAssistantError,
    home_assistant,
    wait_until_running,
)
from scripts.house.processes import free_port
from scripts.house.setup import LIGHTS, furnish

WISH = "Turn on the kitchen light"
LIGHT = "light.kitchen_light"
QUESTION = "What is gravity?"


def main() -> int:
    """Run the demo and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="make demo", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--once", action="store_true", help="end after the two answers; exit code 0 only if both came")
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
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    work = asyncio.create_task(_demonstrate(folder, console, stop, once=once))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not work.done():
        work.cancel()
        console.print("Stopping …")
        await asyncio.wait([work])
    try:
        return 0 if work.cancelled() else work.result()
    except (HomeAssistantError, OSError, TimeoutError, aiohttp.ClientError) as error:
        console.print(f"[red]The demo failed:[/] {str(error) or type(error).__name__}", highlight=False)
        _print_logs(folder, console)
        return 1


async def _demonstrate(folder: Path, console: Console, stop: asyncio.Event, *, once: bool) -> int:
    password = secrets.token_urlsafe(9)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        appliance = Appliance(folder / "rouse", broker_port=free_port(1883), gateway_port=free_port(8100))
        appliance.configure()
        async with _step(console, "Hub, broker, node and expert"):
            await stack.enter_async_context(appliance.running())
        async with _step(console, "Home Assistant"):
            house = await stack.enter_async_context(
                home_assistant(folder / "home-assistant", port=free_port(8123), lights=LIGHTS, http=http)
            )
            await house.onboard("demo", password)
            await wait_until_running(house)
        async with _step(console, "Rouse in Home Assistant, by its config flow"):
            await furnish(house, appliance)
        good = await _ask(house, console)
        if not once:
            console.print(f"\nHome Assistant: [bold]{house.url}[/]   user [bold]demo[/]   password [bold]{password}[/]")
            console.print("Press Ctrl-C to stop everything.")
            await stop.wait()
    return 0 if good else 1


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
