"""What a text is about, by keywords in English, German, French and Spanish."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args
from zlib import crc32

from appliance.settings.model import Domain

DOMAINS: tuple[Domain, ...] = get_args(Domain)
LONGEST = 2000
"""Characters that are looked at; a request is nearly always said at its beginning."""

_WEAK, _STRONG = 1, 3
type _Patterns = tuple[tuple[int, str, str], ...]
"""Weight, what is found (for people), regular expression on case-folded text."""

_PATTERNS: Mapping[Domain, _Patterns] = {
    "home-control": (
        (
            _STRONG,
            "a command to a device",
            (
                r"\b(turn|switch) (\w+ ){0,4}(on|off)\b|\bturn (on|off)\b|\b(dim|brighten|unlock|lock) (the|my|all)\b"
                r"|\b(schalte?|mach|dreh|stelle?|fahre?) (\w+ ){1,5}(an|aus|ein|auf|zu|hoch|runter|herunter)\b"
                r"|\b(allume|éteins|ferme|ouvre|baisse|monte|allumer|éteindre)[zr]? (l[ea']|les|tou)"
                r"|\b(enciende|apaga|abre|cierra|sube|baja|encender|apagar) (el|la|los|las|tod)"
            ),
        ),
        (
            _WEAK,
            "a device",
            (
                r"\b(lights?|lamps?|thermostat|heating|blinds?|shutters?|curtains?|fan|vacuum|garage|alarm|socket)\b"
                r"|\b(licht|lichter|lampen?|heizung|rollladen|rollläden|jalousien?|steckdose|thermostat|garagentor)\b"
                r"|\b(lumières?|lampes?|chauffage|volets?|stores?|prise|climatisation)\b"
                r"|\b(luz|luces|lámparas?|calefacción|persianas?|enchufe|termostato|aire acondicionado)\b"
            ),
        ),
        (
            _WEAK,
            "a room",
            (
                r"\b(kitchen|bedroom|living room|bathroom|hallway|garden|office)\b"
                r"|\b(küche|schlafzimmer|wohnzimmer|badezimmer|flur|garten|büro)\b"
                r"|\b(cuisine|chambre|salon|salle de bains?|couloir|jardin|bureau)\b"
                r"|\b(cocina|dormitorio|salón|baño|pasillo|jardín|oficina)\b"
            ),
        ),
    ),
    "coding": (
        (
            _STRONG,
            "a programming language",
            r"\b(python|javascript|typescript|rust|golang|sql|bash|c\+\+|java|html|css|regex|yaml)(?!\w)|```",
        ),
        (
            _STRONG,
            "code",
            r"\bdef \w+\(|\bclass \w+[:(]|\bfunction \w*\(|\bimport \w+|\bselect .+ from\b|#include|=>|\breturn \w+;",
        ),
        (
            _WEAK,
            "words of programming",
            (
                r"\b(code|function|program|script|algorithm|compile|debug|refactor|stack trace|exception|loop)\b"
                r"|\b(funktion|programm|skript|algorithmus|schleife|quelltext|fehlermeldung)\b"
                r"|\b(fonction|programme|algorithme|boucle)\b|\b(función|programa|algoritmo|bucle|código)\b"
            ),
        ),
    ),
    "maths": (
        (
            _STRONG,
            "an arithmetic expression",
            r"\d\s*([+*/\u00d7\u00f7^]|\*\*|- |x)\s*\(?-?\d|\d\s+-\s+\d",
        ),
        (
            _STRONG,
            "a sum in words",
            (
                r"\d[\d.,]* (plus|minus|times|divided by|multiplied by|mal|geteilt durch|fois|moins|divisé par"
                r"|más|menos|por|dividido (por|entre)) -?\d|\b(square root|quadratwurzel|racine carrée|raíz cuadrada)\b"
                r"|\d ?(%|percent|prozent|pour ?cent|por ciento) (of|von|de)\b"
            ),
        ),
        (
            _WEAK,
            "words of mathematics",
            (
                r"\b(calculate|compute|solve|equation|sum of|product of|how many|how much|average|derivative)\b"
                r"|\b(berechne|rechne|löse|gleichung|summe|produkt|wie ?viele?|durchschnitt)\b"
                r"|\b(calcule|calculez|résous|équation|somme|produit|combien|moyenne)\b"
                r"|\b(calcula|resuelve|ecuación|suma|producto|cuántos|cuántas|cuánto|promedio)\b"
            ),
        ),
    ),
    "extraction": (
        (
            _STRONG,
            "a wish to take data out of a text",
            (
                r"\b(extract|pull out|find (all|the|every) (\w+ ){1,3}in)\b|\b(extrahiere|entnimm)\b"
                r"|\b(extrais|extraire|relève)\b|\b(extrae|extraer|saca)\b|\b(as|als|en|como) json\b"
            ),
        ),
        (
            _WEAK,
            "a kind of data",
            (
                r"\b(json|xml|csv|fields?|e-?mail address(es)?|phone numbers?|invoice|names?)\b"
                r"|\b(felder|e-?mail-?adressen?|telefonnummern?|rechnung)\b"
                r"|\b(champs|adresses? e-?mail|numéros? de téléphone|facture)\b"
                r"|\b(campos|correos?|direcciones de correo|teléfonos?|factura)\b"
            ),
        ),
    ),
}
PATTERNS_SUM = crc32(repr(_PATTERNS).encode())
"""Another one whenever a pattern changes."""
_COMPILED = {
    domain: tuple((weight, name, re.compile(pattern)) for weight, name, pattern in patterns)
    for domain, patterns in _PATTERNS.items()
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What a text is about, and by what that was seen."""

    domain: Domain
    because: tuple[str, ...]


def signs(text: str) -> dict[Domain, list[tuple[int, str]]]:
    """Return the signs that a text shows of each domain, with their weights."""
    folded = text[:LONGEST].casefold().replace("\u2019", "'")
    return {
        domain: [(weight, name) for weight, name, pattern in patterns if pattern.search(folded)]
        for domain, patterns in _COMPILED.items()
    }


def find_domain(text: str) -> Finding:
    """Return the domain with the strongest signs; `chat` when there are none.

    Ties go to the domain that stands first: to code and sums only when they outweigh the house.
    """
    return strongest(signs(text))


def strongest(found: Mapping[Domain, Sequence[tuple[int, str]]]) -> Finding:
    """Return the domain of which most was found."""
    best = Finding("chat", ())
    most = 0
    for domain, shown in found.items():
        score = sum(weight for weight, _ in shown)
        if score > most:
            most, best = score, Finding(domain, tuple(name for _, name in shown))
    return best
