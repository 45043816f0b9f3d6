"""Llama 3's form: the whole answer is `{"name": "f", "parameters": {"a": 1}}`, one call.

(https://www.llama.com/docs/model-cards-and-prompt-formats/llama3_1.) `<|python_tag|>` may stand before it; as a control
token it has no text here.
"""

import json
import re

from appliance.experts.chat.call_grammar import calls_grammar
from appliance.experts.chat.formats.calls import CallFormat, JsonCallReader, Tools, compact
from appliance.experts.chat.grammar import literal

OPEN = '{"name":'
HEAD = re.compile(r'^\s*"((?:[^"\\]|\\.)*)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')


def _head(name: str) -> str:
    return f'ws {literal(json.dumps(name))} ws "," ws "\\"parameters\\"" ws ":" ws'


def _grammar(tools: Tools, *, parallel: bool) -> str:  # noqa: ARG001  # the form has no second call
    return calls_grammar(tools, parallel=False, head=_head, tail='ws "}"')


LLAMA3 = CallFormat(
    name="llama3",
    opening=OPEN,
    at_start=True,
    forcing=OPEN,
    speaks=lambda template: "<|start_header_id|>ipython" in template or "'ipython'" in template,
    grammar=_grammar,
    reader=lambda: JsonCallReader(HEAD),
    written=lambda name, arguments: compact({"name": name, "parameters": arguments}),
)
