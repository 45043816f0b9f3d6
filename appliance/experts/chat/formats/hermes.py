"""The Hermes form that Qwen, SmolLM3 and others were trained on; also for models whose template knows no tools.

`<tool_call>{"name": "HassTurnOn", "arguments": {"name": "Attic Lamp"}}</tool_call>`
(https://github.com/NousResearch/Hermes-Function-Calling).
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from appliance.experts.chat.call_grammar import calls_grammar
from appliance.experts.chat.formats.calls import CallFormat, JsonCallReader, Tools, compact
from appliance.experts.chat.grammar import literal

OPEN = "<tool_call>"
CLOSE = "</tool_call>"
HEAD = re.compile(r'\{\s*"name"\s*:\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')


def head(name: str) -> str:
    """Return the rule of what stands before the arguments."""
    return f'"{{" ws "\\"name\\"" ws ":" ws {literal(json.dumps(name))} ws "," ws "\\"arguments\\"" ws ":" ws'


def _grammar(tools: Tools, *, parallel: bool) -> str:
    tail = f'ws "}}" ws {literal(CLOSE)}'
    return calls_grammar(tools, parallel=parallel, head=head, start="ws", tail=tail, between=f"ws {literal(OPEN)} ws")


def _written(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{OPEN}{compact({'name': name, 'arguments': arguments})}{CLOSE}"


HERMES = CallFormat(
    name="hermes",
    opening=OPEN,
    forcing=OPEN,
    markers=(OPEN, CLOSE),
    speaks=lambda template: OPEN in template and "<function=" not in template,
    grammar=_grammar,
    reader=lambda: JsonCallReader(HEAD),
    written=_written,
)
