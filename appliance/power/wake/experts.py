"""Has experts ready: from an expert's name to the node that is woken for it."""

from collections.abc import Iterable

from appliance.power.nodes import KnownNode, NodeBook
from appliance.power.wake.commands import Commands
from appliance.power.wake.waker import Cause, Waker


class ExpertWaker:
    """Wakes one node for each expert that no node is awake for."""

    def __init__(self, *, book: NodeBook, waker: Waker, commands: Commands) -> None:
        """Take what is known of the nodes, what wakes them, and what people asked for."""
        self._book = book
        self._waker = waker
        self._commands = commands

    def awake_with(self, expert: str) -> KnownNode | None:
        """Return a node that has the expert and is awake."""
        return next((node for node in self._sorted(expert) if node.is_awake), None)

    def wake(self, experts: Iterable[str], reason: str, *, cause: Cause) -> tuple[str, ...]:
        """Begin to wake, and return the nodes that are on their way.

        A node that somebody has just put to sleep, or wants off, is left alone.
        """
        chosen = []
        for expert in experts:
            nodes = self._sorted(expert)
            if any(node.is_awake or self._waker.is_waking(node.name) for node in nodes):
                continue
            for node in nodes:
                asleep = node.sleeps and not self._commands.is_wanted_asleep(node.name)
                if asleep and self._waker.wake_soon(node.name, reason, cause=cause):
                    chosen.append(node.name)
                    break
        return tuple(chosen)

    def _sorted(self, expert: str) -> list[KnownNode]:
        return sorted(self._book.with_expert(expert), key=lambda node: node.name)
