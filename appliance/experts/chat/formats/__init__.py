"""How models write tool calls: one small module a format, and which one a chat template speaks.

llama.cpp has such a table in C++ (common/chat.cpp), which its C API and so llama-cpp-python do not expose.
"""

from appliance.experts.chat.formats.calls import CallFormat, CallReader
from appliance.experts.chat.formats.harmony import HARMONY
from appliance.experts.chat.formats.hermes import HERMES
from appliance.experts.chat.formats.llama3 import LLAMA3
from appliance.experts.chat.formats.mistral import MISTRAL_ARGS, MISTRAL_LIST
from appliance.experts.chat.formats.pythonic import PYTHONIC

FORMATS: tuple[CallFormat, ...] = (HARMONY, PYTHONIC, MISTRAL_ARGS, MISTRAL_LIST, LLAMA3, HERMES)
"""In the order in which templates are compared with them."""

MARKERS = tuple(dict.fromkeys(marker for form in FORMATS for marker in form.markers))
"""Texts that are control tokens in some models, and that are read here."""


def format_of(template: str) -> CallFormat | None:
    """Return the format that a chat template presents tools and calls in; None if it knows none of these."""
    return next((form for form in FORMATS if "tools" in template and form.speaks(template)), None)


__all__ = ["FORMATS", "HERMES", "MARKERS", "CallFormat", "CallReader", "format_of"]
