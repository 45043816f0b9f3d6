"""Which of several equal endpoints to ask: the one that knows the prompt's beginning, unless it has too much to do.

The rule is that of SGLang's cache-aware router (https://docs.sglang.ai, "SGLang Router"): a prefix that is in the
KV cache wins as long as the load is balanced, and the shortest queue wins when it is not.
"""

from collections.abc import Sequence

from appliance.gateway.health import Key
from appliance.gateway.prefixes import Blocks, PrefixMemory
from appliance.routing.candidates import Endpoint

MAX_IMBALANCE = 1.0
"""Requests for each slot that an endpoint may have more than the least busy one and still be asked for the sake of
its cache: about one answer's time of waiting, which is what reading a long prompt anew costs on an old machine."""


class Balance:
    """What each endpoint is doing and what it has read."""

    def __init__(self) -> None:
        self._in_flight: dict[Key, int] = {}
        self._others: dict[str, int] = {}
        """By node: requests of others than this gateway, when it last told."""
        self._memories: dict[Key, PrefixMemory] = {}

    def in_flight(self, key: Key) -> int:
        """Return how many requests of this gateway an endpoint has."""
        return self._in_flight.get(key, 0)

    def load(self, endpoint: Endpoint) -> float:
        """Return the requests for each slot, those included that others have sent to the endpoint's node."""
        return (self.in_flight(endpoint.key) + self._others.get(endpoint.node, 0)) / max(1, endpoint.slots)

    def told(self, node: str, requests: int) -> None:
        """Note how many requests a node says that it has, running and waiting."""
        own = sum(count for key, count in self._in_flight.items() if key[0] == node)
        self._others[node] = max(0, requests - own)

    def begin(self, endpoint: Endpoint, blocks: Blocks) -> None:
        """Note that an endpoint is sent a request."""
        self._in_flight[endpoint.key] = self.in_flight(endpoint.key) + 1
        memory = self._memories.get(endpoint.key)
        if memory is None:
            cache = endpoint.context * endpoint.slots if endpoint.context is not None else None
            memory = self._memories[endpoint.key] = PrefixMemory(cache)
        memory.remember(blocks)

    def end(self, endpoint: Endpoint) -> None:
        """Note that the request is over, however it ended."""
        left = self.in_flight(endpoint.key) - 1
        if left:
            self._in_flight[endpoint.key] = left
        else:
            del self._in_flight[endpoint.key]

    def forget(self, key: Key) -> None:
        """Note that an endpoint has started anew: its cache is empty."""
        self._memories.pop(key, None)

    def forget_node(self, node: str) -> None:
        """Note that a node tells nothing any more."""
        self._others.pop(node, None)

    def sort(self, endpoints: Sequence[Endpoint], blocks: Blocks) -> Sequence[Endpoint]:
        """Return equal endpoints, the one to ask first in front."""
        if len(endpoints) < 2:
            return endpoints
        loads = {endpoint.key: self.load(endpoint) for endpoint in endpoints}
        least = min(loads.values())

        def place(endpoint: Endpoint) -> tuple[bool, int, float, Key]:
            load = loads[endpoint.key]
            overloaded = load - least > MAX_IMBALANCE
            memory = self._memories.get(endpoint.key)
            matched = memory.matched(blocks) if memory is not None and not overloaded else 0
            return overloaded, -matched, load, endpoint.key

        return sorted(endpoints, key=place)
