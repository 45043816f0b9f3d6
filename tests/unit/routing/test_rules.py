from pathlib import Path

import pytest

from appliance.routing.domains import find_domain
from appliance.routing.rules import RulesRouter, rules_of
from appliance.settings.model import ExpertSettings, RoutingRules, RoutingSettings, Settings

TEXTS = (
    ("home-control", "Turn on the light in the kitchen"),
    ("home-control", "Please switch the bedroom lamp off"),
    ("home-control", "Schalte das Licht im Wohnzimmer aus"),
    ("home-control", "Mach die Heizung im Bad an"),
    ("home-control", "Éteins la lumière du salon"),
    ("home-control", "Ouvre les volets"),
    ("home-control", "Enciende la luz de la cocina"),
    ("home-control", "Baja las persianas del dormitorio"),
    ("maths", "What is 17 + 25?"),
    ("maths", "Wie viel ist 12 mal 7?"),
    ("maths", "Combien font 9 fois 8 ?"),
    ("maths", "¿Cuánto es 15 más 27?"),
    ("maths", "what is 15% of 80"),
    ("coding", "Write a Python function that reverses a list"),
    ("coding", "Schreibe eine Python-Funktion, die das Licht im Flur schaltet"),
    ("coding", "Why does `return x;` not compile?"),
    ("extraction", "Extract the e-mail addresses from: write to a@b.example"),
    ("extraction", "Extrahiere alle Telefonnummern als JSON"),
    ("extraction", "Extrais les champs de cette facture"),
    ("extraction", "Extrae los correos de este texto"),
    ("chat", "Tell me a story about a fox"),
    ("chat", "Wer hat Faust geschrieben?"),
    ("chat", ""),
    ("chat", "\ud800\x00"),
)


@pytest.mark.parametrize(("domain", "text"), TEXTS)
def test_domain_in_four_languages(domain: str, text: str) -> None:
    assert find_domain(text).domain == domain


@pytest.mark.parametrize("text", ["turn " * 100_000, "mach " * 100_000 + "an", "1 " * 100_000, "a" * 1_000_000])
def test_long_texts_end(text: str) -> None:
    assert find_domain(text).domain


def test_rules_come_before_purposes_and_only_able_experts_are_ranked() -> None:
    router = RulesRouter(rules={"maths": ["sums", "away"]}, purposes={"other": ["maths"], "sums": ["maths"]})
    decision = router.choose("What is 3 + 4?", ["chatty", "other", "sums"])
    assert decision.experts == ("sums", "other")
    assert decision.router == "rules"
    assert "maths" in decision.reason
    assert "arithmetic expression" in decision.reason


def test_no_expert_for_a_domain_is_no_rank() -> None:
    decision = RulesRouter(rules={"maths": ["sums"]}, purposes={}).choose("What is 3 + 4?", ["chatty"])
    assert decision.experts == ()
    assert "no able expert is set" in decision.reason


def test_from_settings() -> None:
    settings = Settings(
        experts={"lamp": ExpertSettings(model=Path("x.gguf"), purposes=("home-control",))},
        routing=RoutingSettings(rules=RoutingRules(home_control=("house",))),
    )
    decision = rules_of(settings).choose("Turn off the fan", ["lamp", "house"])
    assert decision.experts == ("house", "lamp")
