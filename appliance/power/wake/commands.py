"""What people ask for on the bus, as far as it is the hub's business."""

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

from appliance.bus.client import Bus
from appliance.bus.power_messages import PowerCommand
from appliance.bus.topics import POWER_COMMAND
from appliance.power.nodes import FOR_EVER, NodeBook
from appliance.power.wake.waker import Waker

_log = logging.getLogger(__name__)

REMEMBERED_COMMANDS = 256
QUIET_SECONDS = 7200.0
"""For how long a node that somebody put to sleep is woken by requests only, and not by guesses."""


class Commands:
    """Obeys `wake`, `recover` and `stay_off`, and remembers what else was asked of each node."""

    def __init__(
        self,
        *,
        book: NodeBook,
        waker: Waker,
        recover: Callable[[str, str], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Take what is known of the nodes, what wakes them, and what begins the recovery of one."""
        self._book = book
        self._waker = waker
        self._recover = recover
        self._wall = wall
        self._seen: deque[str] = deque(maxlen=REMEMBERED_COMMANDS)
        self._put_down: dict[str, float] = {}
        self._awake_until: dict[str, float] = {}

    def attach(self, bus: Bus) -> None:
        """Subscribe to the commands."""
        bus.subscribe(POWER_COMMAND, self.take)

    def is_wanted_asleep(self, node: str) -> bool:
        """Whether somebody put the node to sleep not long ago."""
        return self._wall() < self._put_down.get(node, float("-inf")) + QUIET_SECONDS

    def awake_until(self, node: str) -> float:
        """Return until when the node was asked to stay awake, as Unix time; 0 if it was not."""
        return self._awake_until.get(node, 0.0)

    async def take(self, command: PowerCommand | None, levels: Mapping[str, str]) -> None:
        """Obey a command; one that is repeated is obeyed once."""
        node = levels["node"]
        if command is None or command.id in self._seen or self._book.get(node) is None:
            return
        self._seen.append(command.id)
        reason = command.reason or "no reason given"
        if command.action in {"sleep", "stay_off"}:
            self._put_down[node] = self._wall()
            self._awake_until.pop(node, None)
        else:
            self._put_down.pop(node, None)
            self._book.let_up(node)
        if command.action == "wake":
            self._waker.wake_soon(node, reason, cause="command")
        elif command.action == "recover":
            self._recover(node, reason)
        elif command.action == "stay_awake":
            self._awake_until[node] = FOR_EVER if command.until is None else command.until
        elif command.action == "stay_off":
            _log.info("%s is to stay off: %s", node, reason)
            self._book.keep_off(node, command.until)
