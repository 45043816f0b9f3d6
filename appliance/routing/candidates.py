"""Which experts should be asked, best first: a plain rule on names and capabilities."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An expert as the router sees it."""

    name: str
    node: str
    url: str
    """Base URL that ends in `/v1`."""
    capabilities: frozenset[str]


def rank(
    model: str, needs: frozenset[str], endpoints: Iterable[Endpoint], fallbacks: Sequence[str]
) -> tuple[Endpoint, ...]:
    """Order the endpoints that can answer a request, best first.

    An expert asked for by name comes first, then the fallbacks in their order, then the others by
    name. With `auto` there is no first, and the fallbacks lead. `needs` are capabilities without
    which an endpoint is left out; an expert asked for by name is never left out, so that it can
    explain itself.
    """
    order = {name: position for position, name in enumerate(fallbacks, start=1)}
    order[model] = 0

    def key(endpoint: Endpoint) -> tuple[int, str, str]:
        return order.get(endpoint.name, len(order) + 1), endpoint.name, endpoint.node

    able = (endpoint for endpoint in endpoints if endpoint.name == model or needs <= endpoint.capabilities)
    return tuple(sorted(able, key=key))
