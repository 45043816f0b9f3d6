"""A node that belongs to no hub: it announces itself, shows a code, and waits behind its door."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from zeroconf import Error as MulticastError

from appliance import __version__
from appliance.pairing.discovery import Announcement, multicast, own_addresses
from appliance.pairing.door import Door
from appliance.pairing.door_server import DoorServer, FirstBoot, open_door
from appliance.pairing.node_store import NodeStore
from appliance.pairing.wire import State
from appliance.settings.model import Settings

_log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the announcement is compared with the door's state and the machine's addresses."""
FAREWELL_SECONDS = 1.0
"""How long the door stays for its last answer to reach the hub."""
_MODEL_FILES = ("class/dmi/id/sys_vendor", "class/dmi/id/product_name")
_DEVICE_TREE_MODEL = "firmware/devicetree/base/model"


async def wait_until_paired(
    settings: Settings, *, name: str, first_boot: FirstBoot, stop: asyncio.Event, ready: Callable[[int], None]
) -> bool:
    """Keep the door until a hub has claimed this node.

    Args:
        settings: the effective settings.
        name: the node's name on the bus.
        first_boot: what is told of the first-boot file.
        stop: ends the waiting.
        ready: is called with the door's port when it is open.

    Returns:
        Whether the node is paired; False when it was stopped before.

    Raises:
        StartError: the door's port is taken.
        StorageError: the state folder can't be used.
    """
    store = NodeStore(settings.paths.state)
    door = Door(name=name, roles=settings.node.roles, store=store, code_lifetime=settings.pairing.code_lifetime)

    def state() -> State:
        return State(
            node=door.identity,
            title=(settings.node.title or name)[:120],
            model=machine_model()[:120],
            rouse=__version__,
            roles=settings.node.roles,
            state=door.state,
            retry_after=round(door.locked_for, 1),
        )

    server = DoorServer(door, state=state, first_boot=first_boot)
    async with open_door(server, port=settings.pairing.port, socket=settings.pairing.socket) as port:
        _log.info("this node belongs to no hub yet; the pairing door is open on port %d", port)
        ready(port)
        announcing = asyncio.create_task(_announce(port, settings.pairing.addresses, state), name="announce the door")
        waiting = [asyncio.create_task(event.wait(), name="wait") for event in (stop, door.paired)]
        try:
            await asyncio.wait([announcing, *waiting], return_when=asyncio.FIRST_COMPLETED)
            if announcing.done():
                announcing.result()
            if door.paired.is_set():
                await asyncio.sleep(FAREWELL_SECONDS)
        finally:
            for task in (announcing, *waiting):
                task.cancel()
            await asyncio.gather(announcing, *waiting, return_exceptions=True)
    return door.paired.is_set()


async def _announce(port: int, chosen: Sequence[str], state: Callable[[], State]) -> None:
    """Keep the announcement up to date; a network that is not there yet is waited for."""
    complained = False
    while True:
        try:
            addresses = own_addresses(chosen)
            if addresses:
                async with multicast(addresses) as zeroconf:
                    announcement = Announcement(zeroconf, port=port, addresses=addresses)
                    # zeroconf joins the networks that there are when it starts.
                    while own_addresses(chosen) == addresses:
                        await announcement.tell(state())
                        await asyncio.sleep(LOOK_SECONDS)
        except (OSError, MulticastError) as error:
            if not complained:
                _log.warning("this node can't be announced in the network yet: %s", error)
            complained = True
        await asyncio.sleep(LOOK_SECONDS)


def machine_model(sys_folder: Path = Path("/sys")) -> str:
    """Return what the machine is sold as, where its firmware tells."""
    words = []
    for name in (*_MODEL_FILES, _DEVICE_TREE_MODEL):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            word = (sys_folder / name).read_text(encoding="utf-8").strip("\0\n ")
            words += [word] if word.isprintable() and word not in words else []
    return " ".join(words) or "unknown"
