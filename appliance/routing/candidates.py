"""Which experts should be asked, best first: a plain rule on names, capabilities and what a router says."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from appliance.routing.decision import Decision

AUTO = "auto"
"""In a policy, the place of the router's choice."""
FEWEST_TOKENS_PER_BYTE = 1 / 16
"""No usual tokenizer makes fewer tokens of text: a prompt with more of them than a context holds can't fit."""

type Unfit = Literal["capability", "context"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An expert as the router sees it."""

    name: str
    node: str
    url: str
    """Base URL, without a trailing slash; `/chat/completions` and the like follow it."""
    capabilities: frozenset[str]
    context: int | None = None
    """Tokens that one request may use; None if not known."""
    slots: int = 1
    """Requests that it answers at the same time."""
    priority: int = 0
    """Among those that nothing else ranks, the higher one is asked first."""
    external: bool = False
    """Whether it is somebody else's server, known from the settings and not from the bus."""
    asleep: bool = False
    """Whether its machine must be woken first."""

    @property
    def key(self) -> tuple[str, str]:
        """Node and name, which tell it from all others."""
        return self.node, self.name


@dataclass(frozen=True, slots=True)
class Tier:
    """Endpoints of equal rank, and why they have it."""

    endpoints: tuple[Endpoint, ...]
    reason: str
    """One sentence for people."""
    router: str
    """Who decided: `request`, `agent`, `settings`, or the router's own name."""
    ranked: bool = True
    """Whether anybody wants them in particular; the others are there too, that is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """In which order a request wants experts to be asked."""

    experts: tuple[str, ...] = (AUTO,)
    """Names, and `auto` where the router's choice comes."""
    source: Literal["request", "agent"] = "request"
    """Who says so."""
    fallbacks: tuple[str, ...] = ()
    """What the settings say comes next."""
    always_on: str | None = None
    """The small expert that is always there; it comes after the fallbacks."""
    while_asleep: Literal["answer", "wait"] = "answer"
    """Whether those that are awake answer while the first choice is being woken."""


def unfit(endpoint: Endpoint, needs: frozenset[str], prompt_bytes: int) -> Unfit | None:
    """Say why an endpoint can't answer a request, or None if it may be able to."""
    if not needs <= endpoint.capabilities:
        return "capability"
    if endpoint.context is not None and prompt_bytes * FEWEST_TOKENS_PER_BYTE > endpoint.context:
        return "context"
    return None


def rank(endpoints: Iterable[Endpoint], policy: Policy, decision: Decision | None) -> tuple[Tier, ...]:
    """Order endpoints, best first; those of one name are equal, and so are those that nothing ranks.

    The policy's experts come first, with the router's first choice at the place of `auto`; then the settings'
    fallbacks, the one that is always on, the router's other choices, and the rest by priority.
    """
    remaining: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        remaining.setdefault(endpoint.name, []).append(endpoint)
    tiers = []
    for names, reason, router in _order(policy, decision):
        found = [endpoint for name in names for endpoint in remaining.pop(name, ())]
        if found:
            tiers.append(Tier(tuple(found), reason, router))
    rest = [endpoint for found in remaining.values() for endpoint in found]
    for priority in sorted({endpoint.priority for endpoint in rest}, reverse=True):
        equal = sorted((one for one in rest if one.priority == priority), key=lambda one: (one.name, one.node))
        tiers.append(
            Tier(
                tuple(equal), "It is ready, and nothing says that another is better.", "settings", ranked=priority >= 0
            )
        )
    return tuple(tiers)


def _order(policy: Policy, decision: Decision | None) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Yield names of equal rank, the reason and who decided; a name may come more than once."""
    chosen = _of_equal_score(decision) if decision is not None else []
    named = "The request names it." if policy.source == "request" else "It is in the agent's list."
    for name in policy.experts:
        if name != AUTO:
            yield (name,), named, policy.source
        elif decision is not None and chosen:
            yield chosen[0], decision.reason, decision.router
    for name in policy.fallbacks:
        yield (name,), "It is in gateway.fallbacks.", "settings"
    if policy.always_on is not None:
        yield (policy.always_on,), "It is the one that is always on.", "settings"
    if decision is not None:
        for names in chosen[1:]:
            yield names, "The router ranks it lower.", decision.router


def _of_equal_score(decision: Decision) -> list[tuple[str, ...]]:
    """Return the names in their order, neighbours with the same score together."""
    groups: list[list[str]] = []
    for name in decision.experts:
        score = decision.scores.get(name)
        if groups and score is not None and score == decision.scores.get(groups[-1][-1]):
            groups[-1].append(name)
        else:
            groups.append([name])
    return [tuple(group) for group in groups]


def names_of(endpoints: Sequence[Endpoint]) -> tuple[str, ...]:
    """Return the endpoints' names, each once, in alphabetical order."""
    return tuple(sorted({endpoint.name for endpoint in endpoints}))
