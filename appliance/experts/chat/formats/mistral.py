"""Mistral's two forms, by the age of the tokenizer.

`[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}]` up to version 7, `[TOOL_CALLS]f[ARGS]{"a": 1}` since version 11
(https://docs.mistral.ai/cookbooks/concept-deep-dive-tokenization-tool_calling).
"""

import re
from collections.abc import Mapping
from typing import Any

from appliance.experts.chat.call_grammar import calls_grammar
from appliance.experts.chat.formats.calls import CallFormat, JsonCallReader, Tools, compact
from appliance.experts.chat.formats.hermes import HEAD, head
from appliance.experts.chat.grammar import literal

OPEN = "[TOOL_CALLS]"
ARGS = "[ARGS]"
ARGS_HEAD = re.compile(r"(?:\[TOOL_CALLS\])?\s*([^\[\]{}\s]+)\[ARGS\]\s*(?=\{)")


def _list_grammar(tools: Tools, *, parallel: bool) -> str:
    return calls_grammar(
        tools,
        parallel=parallel,
        head=head,
        start='ws "[" ws',
        tail='ws "}"',
        between='ws "," ws',
        end='ws "]"',
    )


def _args_grammar(tools: Tools, *, parallel: bool) -> str:
    return calls_grammar(
        tools, parallel=parallel, head=lambda name: literal(name + ARGS), tail="", between=literal(OPEN)
    )


def _written(name: str, arguments: Mapping[str, Any]) -> str:
    return f"{OPEN}[{compact({'name': name, 'arguments': arguments})}]"


MISTRAL_LIST = CallFormat(
    name="mistral",
    opening=OPEN,
    forcing=OPEN,
    markers=(OPEN,),
    speaks=lambda template: OPEN in template and ARGS not in template,
    grammar=_list_grammar,
    reader=lambda: JsonCallReader(HEAD),
    written=_written,
)

MISTRAL_ARGS = CallFormat(
    name="mistral-args",
    opening=OPEN,
    forcing=OPEN,
    markers=(OPEN, ARGS),
    speaks=lambda template: OPEN in template and ARGS in template,
    grammar=_args_grammar,
    reader=lambda: JsonCallReader(ARGS_HEAD),
    written=lambda name, arguments: f"{OPEN}{name}{ARGS}{compact(arguments)}",
)
