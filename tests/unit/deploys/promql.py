"""The metrics that an expression of PromQL asks for."""

import re

_TEXTS = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTORS = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]")
_LABELS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
_NAMES = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?!\s*[a-zA-Z0-9_:(])(?=\s*(?:[^(\s]|$))")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


def metric_names(expression: str) -> set[str]:
    """Return them. Functions, labels, and what is in quotes or brackets are none."""
    rest = _LABELS.sub(" ", _SELECTORS.sub(" ", _TEXTS.sub(" ", expression)))
    return {name for name in _NAMES.findall(rest) if name.lower() not in _WORDS}
