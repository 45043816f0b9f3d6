"""The router that needs no training: a text's domain by keywords, and the experts that are set for it."""

from collections.abc import Mapping, Sequence

from appliance.routing.decision import Decision
from appliance.routing.domains import DOMAINS, find_domain
from appliance.settings.model import Settings

ROUTER = "rules"


class RulesRouter:
    """Ranks the experts that `rules` names for a text's domain, then those whose purpose it is.

    Args:
        rules: by domain: experts, best first.
        purposes: by expert: the domains it is made for.
    """

    def __init__(
        self,
        *,
        rules: Mapping[str, Sequence[str]],
        purposes: Mapping[str, Sequence[str]],
    ) -> None:
        self._rules = rules
        self._purposes = purposes

    def choose(self, text: str, experts: Sequence[str]) -> Decision:
        """Rank the able experts that are set for the text's domain."""
        finding = find_domain(text)
        ruled = [name for name in self._rules.get(finding.domain, ()) if name in experts]
        made = [name for name in experts if finding.domain in self._purposes.get(name, ())]
        ranked = tuple(dict.fromkeys((*ruled, *made)))
        seen = f"it holds {' and '.join(finding.because)}" if finding.because else "it shows no other domain"
        about = f"the text is about {finding.domain}, because {seen}"
        if not ranked:
            return Decision(experts=(), router=ROUTER, reason=f"{about}; no able expert is set for that")
        why = "a rule of the settings" if ranked[0] in ruled else "its purpose"
        return Decision(experts=ranked, router=ROUTER, reason=f"{about}; {ranked[0]} is first by {why}")


def rules_of(settings: Settings) -> RulesRouter:
    """Return the router that the settings describe."""
    rules = settings.routing.rules
    return RulesRouter(
        rules={domain: getattr(rules, domain.replace("-", "_")) for domain in DOMAINS},
        purposes={name: expert.purposes for name, expert in settings.experts.items()},
    )
