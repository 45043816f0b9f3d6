"""From JSON Schema to GBNF, llama.cpp's grammar notation.

(https://json-schema.org/draft/2020-12, llama.cpp's grammars/README.md.) llama-cpp-python has a converter, but
schemas come from clients: that one can be made to build gigabytes of text, and llama.cpp's parser is
exponential in chains of alternatives. Here every rule begins with a literal or a character class, unions are
flattened, and sizes are bounded.

Enforced: type, properties, required, additionalProperties, items, prefixItems, minItems and maxItems,
minLength and maxLength (up to MOST_REPEATS), enum, const, anyOf, oneOf, allOf of objects, local $ref,
nullable, integers' sign. Checked but not enforced: pattern. Ignored: format, ranges and other keywords that
only validate.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from appliance.experts.errors import InvalidRequestError

MOST_DEPTH = 32
MOST_NODES = 2_000
MOST_REPEATS = 1_000
MOST_REPEATS_IN_ALL = 10_000
LARGEST_GRAMMAR = 256 * 1024

_UNSUPPORTED = (
    "not",
    "if",
    "patternProperties",
    "dependentSchemas",
    "$dynamicRef",
    "$recursiveRef",
    "contains",
)
JSON_RULES = {
    "ws": '| " " | "\\n" [ \\t]{0,20}',
    "char": '[^"\\\\\\x7F\\x00-\\x1F] | "\\\\" (["\\\\/bfnrt] | "u" [0-9a-cA-CeEfF] [0-9a-fA-F]{3})',
    "string": '"\\"" char* "\\""',
    "digits": '"0" | [1-9] [0-9]{0,14}',
    "integer": '"-"? digits',
    "natural": '"0" | [1-9] [0-9]{0,14}',
    "number": '"-"? digits ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "object": '"{" ws (string ws ":" ws value ws ("," ws string ws ":" ws value ws)*)? "}"',
    "array": '"[" ws (value ws ("," ws value ws)*)? "]"',
    "value": "object | array | string | number | boolean | null",
}
_PRIMITIVES = ("integer", "number", "boolean", "null", "value")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def json_grammar(schema: Mapping[str, Any] | None, param: str) -> str:
    """Return a grammar for a JSON text that follows a schema, or for any JSON object.

    Raises InvalidRequestError, naming the field, for what can't be converted.
    """
    rules = Rules(schema or {}, param)
    rules.add("root", rules.schema(schema, param, 0) if schema else "object")
    return rules.text()


def literal(text: str) -> str:
    """Return a GBNF literal."""
    return '"' + "".join(_ESCAPES.get(character, character) for character in text) + '"'


class Rules:
    """Collects the rules of one grammar."""

    primitives: Mapping[str, str] = JSON_RULES
    """Rules that every grammar has."""

    def __init__(self, root: Mapping[str, Any], param: str) -> None:
        self.root, self.param, self.prefix = root, param, ""
        self._rules = dict(self.primitives)
        self._references: dict[tuple[str, str], str] = {}
        self._nodes = self._repeats = self._size = 0

    def add(self, name: str, body: str) -> str:
        """Add a rule under a name like this one; return the name it has."""
        if name in self._rules:
            name = f"{name}-{len(self._rules)}"
        self._rules[name] = body
        self._size += len(name) + len(body)
        if self._size > LARGEST_GRAMMAR:
            self.refuse(self.param, "the schema is too large")
        return name

    def text(self) -> str:
        """Return the grammar."""
        text = "".join(f"{name} ::= {body}\n" for name, body in self._rules.items())
        try:
            text.encode()
        except UnicodeEncodeError:
            self.refuse(self.param, "the schema has a lone surrogate")
        if "\0" in text:
            self.refuse(self.param, "the schema has a NUL character")
        return text

    def schema(self, schema: object, param: str, depth: int) -> str:
        """Return the symbol that stands for a schema."""
        members = list(dict.fromkeys(self._members(schema, param, depth, ())))
        return members[0] if len(members) == 1 else self.add("any", " | ".join(members))

    def _members(self, schema: object, param: str, depth: int, seen: tuple[str, ...]) -> Iterator[str]:
        """Yield the symbols of a schema's alternatives, none of which is a union."""
        schema = self._enter(schema, param, depth)
        if (reference := schema.get("$ref")) is not None:
            yield from self._reference(reference, param, depth, seen)
            return
        alternatives = schema.get("anyOf", schema.get("oneOf"))
        if alternatives is not None:
            for index, alternative in enumerate(self.listing(alternatives, f"{param}.anyOf")):
                yield from self._members(alternative, f"{param}.anyOf.{index}", depth + 1, seen)
        elif "allOf" in schema:
            yield from self._members(self._merged(schema, param), param, depth + 1, seen)
        elif isinstance(kinds := schema.get("type"), list):
            for kind in self.listing(kinds, f"{param}.type"):
                yield from self._members({**schema, "type": kind}, param, depth + 1, seen)
        else:
            yield self._single(schema, param, depth)
        if schema.get("nullable") is True:
            yield "null"

    def _enter(self, schema: object, param: str, depth: int) -> Mapping[str, Any]:
        """Count a schema and check its form; `true` is the schema that allows everything."""
        self._nodes += 1
        if self._nodes > MOST_NODES or depth > MOST_DEPTH:
            self.refuse(param, f"at most {MOST_NODES} schemas, {MOST_DEPTH} deep, are converted")
        if schema is True:
            return {}
        if not isinstance(schema, Mapping):
            self.refuse(param, "expected a schema, which is an object")
        for keyword in _UNSUPPORTED:
            if keyword in schema:
                self.refuse(param, f"the keyword {keyword} is not supported")
        return schema

    def _reference(self, reference: object, param: str, depth: int, seen: tuple[str, ...]) -> Iterator[str]:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            self.refuse(param, f"only references into the schema (#/…) are supported, not {reference!r:.80}")
        if reference in seen:
            self.refuse(param, f"the reference {reference:.80} leads to itself")
        key = (self.prefix, reference)
        if (known := self._references.get(key)) is not None:
            yield known
            return
        target = self._resolve(reference, param)
        if (isinstance(target, Mapping) and target.keys() & {"$ref", "anyOf", "oneOf", "allOf", "nullable"}) or (
            isinstance(target, Mapping) and isinstance(target.get("type"), list)
        ):
            yield from self._members(target, param, depth + 1, (*seen, reference))
            return
        # The name comes before the rule, for schemas that contain themselves.
        name = self._references[key] = self.add(f"{self.prefix}ref", "")
        self._rules[name] = self._single(self._enter(target, param, depth), param, depth + 1)
        yield name

    def _resolve(self, reference: str, param: str) -> object:
        target: object = self.root
        for step in reference[2:].split("/") if len(reference) > 1 else ():
            key = step.replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isascii() and key.isdigit() and int(key[:6]) < len(target):
                target = target[int(key[:6])]
            else:
                self.refuse(param, f"the reference {reference:.80} leads nowhere")
        return target

    def _merged(self, schema: Mapping[str, Any], param: str) -> Mapping[str, Any]:
        """Return what an allOf of objects amounts to."""
        parts = self.listing(schema["allOf"], f"{param}.allOf")
        rest = {key: value for key, value in schema.items() if key != "allOf"}
        properties: dict[str, Any] = {}
        required: list[Any] = []
        for part in [*parts, rest]:
            if isinstance(part, Mapping) and isinstance(part.get("$ref"), str):
                part = self._resolve(part["$ref"], param)  # noqa: PLW2901  # it stands for what it refers to
            if not isinstance(part, Mapping) or part.get("type", "object") != "object" or "allOf" in part:
                self.refuse(f"{param}.allOf", "only objects can be combined")
            properties |= self.mapping(part.get("properties", {}), f"{param}.properties")
            required += part.get("required", [])
        return {**rest, "type": "object", "properties": properties, "required": required}

    def _single(self, schema: Mapping[str, Any], param: str, depth: int) -> str:
        """Return the symbol of a schema that is no union."""
        if "const" in schema:
            return self.add(f"{self.prefix}const", self._constant(schema["const"], param))
        if "enum" in schema:
            values = self.listing(schema["enum"], f"{param}.enum")
            self._nodes += len(values)
            constants = dict.fromkeys(self._constant(value, param) for value in values)
            return self.add(f"{self.prefix}enum", " | ".join(constants))
        kind = schema.get("type", _implied_type(schema))
        if kind == "object":
            symbol = self._object(schema, param, depth)
        elif kind == "array":
            symbol = self._array(schema, param, depth)
        elif kind == "string":
            symbol = self._string(schema, param)
        elif kind == "integer" and _at_least_zero(schema):
            symbol = "natural"
        elif kind in _PRIMITIVES:
            symbol = str(kind)
        else:
            self.refuse(f"{param}.type", f"there is no type {kind!r:.80}")
        return symbol

    def constant(self, value: object) -> str:
        """Return a value as the model writes it."""
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    def _constant(self, value: object, param: str) -> str:
        try:
            text = self.constant(value)
        except (ValueError, RecursionError):
            self.refuse(param, "a constant is not JSON")
        return literal(text)

    def _string(self, schema: Mapping[str, Any], param: str) -> str:
        if (pattern := schema.get("pattern")) is not None:
            try:
                re.compile(pattern)
            except (re.error, TypeError, OverflowError, RecursionError) as error:
                self.refuse(f"{param}.pattern", f"no regular expression: {error}")
        repeat = self._repeat(schema, "minLength", "maxLength", param)
        return self.add(f"{self.prefix}text", f'"\\"" char{repeat} "\\""') if repeat != "*" else "string"

    def _array(self, schema: Mapping[str, Any], param: str, depth: int) -> str:
        items = schema.get("prefixItems", schema.get("items", True))
        if isinstance(items, list):
            members = [self.schema(item, f"{param}.items.{index}", depth + 1) for index, item in enumerate(items)]
            return self.add(f"{self.prefix}tuple", f'"[" ws {' ws "," ws '.join(members) or "ws"} ws "]"')
        item = self.schema(items, f"{param}.items", depth + 1)
        least = self._count(schema, "minItems", param) or 0
        most = self._count(schema, "maxItems", param)
        if most == 0:
            return self.add(f"{self.prefix}array", '"[" ws "]"')
        more = self._bounds(max(least - 1, 0), None if most is None else most - 1, f"{param}.minItems")
        body = f'{item} ws ("," ws {item} ws){more}'
        return self.add(f"{self.prefix}array", f'"[" ws {body if least else f"({body})?"} "]"')

    def _object(self, schema: Mapping[str, Any], param: str, depth: int) -> str:
        extra = schema.get("additionalProperties")
        properties = self.mapping(schema.get("properties", {}), f"{param}.properties")
        if "properties" not in schema and extra is not False and not isinstance(extra, Mapping):
            return "object"
        required = self.listing(schema.get("required", []), f"{param}.required", empty=True)
        pairs: list[tuple[str, bool]] = []
        for name, value in properties.items():
            symbol = self.schema(value, f"{param}.properties.{name}", depth + 1)
            pair = f'{literal(json.dumps(name, ensure_ascii=False))} ws ":" ws {symbol} ws'
            pairs.append((self.add(f"{self.prefix}pair", pair), name in required))
        if extra is True or isinstance(extra, Mapping):
            symbol = self.schema(extra, f"{param}.additionalProperties", depth + 1)
            other = self.add(f"{self.prefix}other", f'string ws ":" ws {symbol} ws')
            pairs.append((self.add(f"{self.prefix}others", f'{other} ("," ws {other})*'), False))
        return self.add(f"{self.prefix}object", f'"{{" ws {self.pairs(pairs)} "}}"')

    def pairs(self, pairs: Sequence[tuple[str, bool]]) -> str:
        """Return the symbol of the pairs in their order, commas between those that are there.

        Built from the end: each pair has a rule for when nothing stands before it and one for when something
        does.
        """
        first = rest = '""'
        for pair, required in reversed(pairs):
            skip_first, skip_rest = ("", "") if required else (f" | {first}", f" | {rest}")
            first, rest = (
                self.add(f"{self.prefix}first", f"{pair} {rest}{skip_first}"),
                self.add(f"{self.prefix}rest", f'"," ws {pair} {rest}{skip_rest}'),
            )
        return first

    def _repeat(self, schema: Mapping[str, Any], least: str, most: str, param: str) -> str:
        return self._bounds(
            self._count(schema, least, param) or 0, self._count(schema, most, param), f"{param}.{least}"
        )

    def _count(self, schema: Mapping[str, Any], keyword: str, param: str) -> int | None:
        value = schema.get(keyword)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            self.refuse(f"{param}.{keyword}", "expected a whole number, not negative")
        return value

    def _bounds(self, least: int, most: int | None, param: str) -> str:
        if least > MOST_REPEATS:
            self.refuse(param, f"at most {MOST_REPEATS} can be enforced")
        if most is not None and most < least:
            self.refuse(param, "the least is more than the most")
        if most is not None and most > MOST_REPEATS:
            most = None
        self._repeats += least if most is None else most
        if self._repeats > MOST_REPEATS_IN_ALL:
            self.refuse(param, f"at most {MOST_REPEATS_IN_ALL} repetitions in all can be enforced")
        if (least, most) == (0, None):
            return "*"
        return f"{{{least},{'' if most is None else most}}}"

    def listing(self, value: object, param: str, *, empty: bool = False) -> list[Any]:
        """Return the value if it is a list."""
        if not isinstance(value, list) or not (value or empty):
            self.refuse(param, "expected a list" if empty else "expected a list that is not empty")
        return value

    def mapping(self, value: object, param: str) -> Mapping[str, Any]:
        """Return the value if it is an object."""
        if not isinstance(value, Mapping):
            self.refuse(param, "expected an object")
        return value

    def refuse(self, param: str, reason: str) -> NoReturn:
        """Raise InvalidRequestError."""
        raise InvalidRequestError(f"{param[:200]}: {reason}.", param=param[:200])


def _implied_type(schema: Mapping[str, Any]) -> str:
    """Return the type that a schema without one is about."""
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else "value"


def _at_least_zero(schema: Mapping[str, Any]) -> bool:
    least = schema.get("minimum")
    return isinstance(least, int | float) and least >= 0
