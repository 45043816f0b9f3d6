"""Grammars for tool calls: what stands around the arguments is the format's, the arguments follow their schema."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from appliance.experts.chat.grammar import JSON_RULES, Rules, literal

MOST_CALLS = 8
"""Calls in one answer."""

_COMBINED = ("$ref", "anyOf", "oneOf", "allOf")


def calls_grammar(
    tools: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    parallel: bool,
    head: Callable[[str], str],
    tail: str,
    start: str = "",
    between: str = "",
    end: str = "",
    python: bool = False,
) -> str:
    """Return a grammar of calls: `start`, then `head(name)`, arguments, `tail` of each with `between` them, then `end`.

    `tools` are names with the JSON Schemas of their arguments, which are a JSON object, or keyword arguments where
    `python`. All others are GBNF. Raises InvalidRequestError.
    """
    rules = PythonRules({}, "tools") if python else Rules({}, "tools")
    names: list[str] = []
    for index, (name, schema) in enumerate(tools):
        param = f"tools.{index}.function.parameters"
        rules.root, rules.param, rules.prefix = schema, param, f"t{index}-"
        whole = {"type": "object", "properties": {}, **schema}
        arguments = rules.keywords(whole, param) if isinstance(rules, PythonRules) else rules.schema(whole, param, 0)
        names.append(rules.add("call", f"{head(name)} {arguments} {tail}"))
    rules.add("one", " | ".join(names))
    more = f" ({between} one){{0,{MOST_CALLS - 1}}}" if parallel else ""
    rules.add("root", f"{start} one{more} {end}")
    return rules.text()


def python_literal(value: object) -> str:
    """Return a value from JSON as a Python literal, strings as in JSON."""
    match value:
        case None | bool():
            return str(value)
        case list():
            return f"[{', '.join(python_literal(item) for item in value)}]"
        case dict():
            return f"{{{', '.join(f'{json.dumps(str(key))}: {python_literal(item)}' for key, item in value.items())}}}"
        case _:
            return json.dumps(value, ensure_ascii=False, allow_nan=False)


class PythonRules(Rules):
    """Rules for values as Python writes them."""

    primitives = {**JSON_RULES, "boolean": '"True" | "False"', "null": '"None"'}  # noqa: RUF012  # never changed

    def constant(self, value: object) -> str:
        """Return a value as the model writes it."""
        return python_literal(value)

    def keywords(self, schema: Mapping[str, Any], param: str) -> str:
        """Return the symbol of keyword arguments that follow an object's schema."""
        if any(keyword in schema for keyword in _COMBINED):
            self.refuse(param, "this model's way of calling tools needs plain properties at the top")
        required = self.listing(schema.get("required", []), f"{param}.required", empty=True)
        pairs: list[tuple[str, bool]] = []
        for name, value in self.mapping(schema["properties"], f"{param}.properties").items():
            if not re.fullmatch(r"[^\W\d]\w{0,127}", name):
                self.refuse(f"{param}.properties", f"{name!r:.80} can't be the name of an argument for this model")
            symbol = self.schema(value, f"{param}.properties.{name}", 1)
            pairs.append((self.add(f"{self.prefix}pair", f"{literal(name + '=')} {symbol}"), name in required))
        return self.pairs(pairs)
