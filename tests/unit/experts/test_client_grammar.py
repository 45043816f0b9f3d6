"""What clients' grammars do to a real vocabulary and a real model."""

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from appliance.experts.backend import Run
from appliance.experts.errors import InvalidRequestError
from appliance.experts.llama.backend import LlamaBackend
from appliance.experts.llama.client_grammar import GrammarState
from appliance.experts.sampling import Sampling
from appliance.experts.settings import EngineSettings
from tests.unit.experts.conftest import Client, serving

pytestmark = pytest.mark.model

MOST = 40
"""Tokens of an answer."""

SETTINGS = EngineSettings(context_tokens=512, slots=4, threads=2, drain_seconds=1)

JSON = r"""
root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws ( string ":" ws value ("," ws string ":" ws value)* )? "}" ws
array  ::= "[" ws ( value ("," ws value)* )? "]" ws
string ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws     ::= | " " | "\n" [ \t]{0,20}
"""
"""llama.cpp's own grammars/json.gbnf, which recurses."""

LIST = 'root ::= item+ # a list\nitem ::= "- " [^\\n]* "\\n"\n'

WRITTEN = {
    'root ::= "yes" | "no"': r"yes|no",
    LIST: r"(- [^\n]*\n)*(- ?[^\n]*)?",
    'root ::= (word " "){2,5} word\nword ::= [a-zA-Z\\]"]{1,4} | .': r"(?s)([a-zA-Z\]\"]{0,4} ?|. ?){0,6}",
    'root ::= ""': r"",
    "root ::= (" + " | ".join(f'"x"{{{count}}}' for count in range(1, 40)) + ') "x"*': r"x*",
    'root ::= "a" |\n  "\\x41" ("b" | )?\n': r"a|Ab?",
    'root ::= [^t]* [^t]* "!"': r"[^t]*",
    'root ::= "(" root ")" | [a-c]': r"\(*[a-c]?\)*",
}
"""Grammars, and what an answer looks like that may be cut."""

REFUSED = {
    "no rules": "nonsense",
    "no root": 'x ::= "a"',
    "unknown rule": "root ::= nowhere",
    "nesting": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000,
    "repetitions": 'root ::= (((("a"?){1000}){1000}){1000}){1000}',
    "endless number": 'root ::= "a"{99999999999999999999}',
    "too many items": 'root ::= "a"{999999999}',
    "open": 'root ::= ("a"',
    "quote": 'root ::= "a',
    "class": "root ::= [",
    "token": "root ::= <|im_end|>",
    "nothing to repeat": "root ::= *",
    "surrogate": 'root ::= "\ud800"',
    "NUL": "\x00",
}
"""At once, or when the answer comes to where they grow too complex."""

AMBIGUOUS = {
    "parts": "root ::= " + "[^t]* " * 40 + '"!"',
    "long parts": "root ::= " + "[a-z]* [ -~]* " * 60,
    "optional parts": "root ::= " + '("a" | "b" | "x")? ' * 300 + '"z"',
    "stacks": 'root ::= s\ns ::= "a" s b | "a" s c | "a" s | "a"\nb ::= "x"?\nc ::= "x"? "y"?',
    "left recursion": 'root ::= root root | "a" | "aa"',
    "mutual recursion": 'root ::= a\na ::= b "x" | ""\nb ::= a | "y" | a a',
    "nothing": 'root ::= ("" | ""){40} ("" )* "z"',
    "doubling": "\n".join(["root ::= r0", *(f"r{n} ::= r{n + 1} r{n + 1}" for n in range(30)), 'r30 ::= "a"?']),
    "alternatives": "\n".join(["root ::= r0", *(f"r{n} ::= r{n + 1} | r{n + 1}" for n in range(30)), 'r30 ::= "a"*']),
    "lookback": "root ::= ([a-z]* [aeiou] [a-z]{200})+",
}
"""Texts that can be read in more ways than there is time for, which llama.cpp would all follow."""


@pytest.fixture(scope="module")
def backend(model: Path) -> Iterator[LlamaBackend]:
    """Return a model that is about to go on with a text."""
    loaded = LlamaBackend(model, SETTINGS)
    loaded.decode([Run(0, 0, loaded.tokenize("The history of software", special=False), outputs=1)])
    yield loaded
    loaded.close()


def follow(backend: LlamaBackend, grammar: str) -> int:
    """Sample again and again from the same row, under a grammar; return how many tokens it allowed."""
    with contextlib.closing(backend.sampler(Sampling(temperature=0))) as sampler:
        sampler.constrain(backend.compile_grammar(grammar))
        for count in range(MOST):
            token = sampler.sample(0)
            if token is None or backend.is_end(token):
                return count
    return MOST


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_followed_is_refused(backend: LlamaBackend, name: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        follow(backend, REFUSED[name])
    assert refusal.value.param == "grammar"
    assert len(str(refusal.value)) < 600


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_ambiguity_ends_nothing_and_does_not_take_forever(backend: LlamaBackend, name: str) -> None:
    with contextlib.suppress(InvalidRequestError):
        assert follow(backend, AMBIGUOUS[name]) >= 0
    assert follow(backend, 'root ::= "yes"') > 0


@given(st.text(alphabet='root:=ab"[]()|*+?{}0123, \n\\#-.<>^', max_size=80))
@hypothesis_settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_but_refusals_is_raised(backend: LlamaBackend, text: str) -> None:
    for source in (text, f"root ::= {text}"):
        with contextlib.suppress(InvalidRequestError):
            GrammarState(backend.compile_grammar(source)).allows(5)


@pytest.fixture
async def client(model: Path) -> AsyncIterator[Client]:
    async with serving(lambda: LlamaBackend(model, SETTINGS), SETTINGS) as running:
        yield running


@pytest.mark.parametrize("grammar", WRITTEN)
async def test_answers_follow_the_grammar(client: Client, grammar: str) -> None:
    request = {"prompt": "Once upon a time", "max_tokens": 24, "n": 3, "seed": 1, "temperature": 1.5}
    status, body = await client.post("/v1/completions", {**request, "grammar": grammar, "logprobs": 1})
    assert status == 200, body
    for choice in body["choices"]:
        assert re.fullmatch(WRITTEN[grammar], choice["text"]), choice["text"]
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


async def test_llama_cpps_own_grammar_of_json(client: Client) -> None:
    _, body = await client.chat("Describe a lamp as JSON.", grammar=JSON, temperature=0, max_tokens=300)
    if body["choices"][0]["finish_reason"] == "stop":
        json.loads(body["choices"][0]["message"]["content"])
    assert body["choices"][0]["message"]["content"].startswith("{")


async def test_a_grammar_that_grows_too_complex_ends_its_own_answer_only(client: Client) -> None:
    status, body = await client.chat("x", grammar=REFUSED["too many items"], max_tokens=60)
    assert (status, body["error"]["param"]) == (400, "grammar")
    assert (await client.chat("Hello", max_tokens=4))[0] == 200
    await client.idle()


def lists(least: int) -> dict[str, object]:
    """Return lists whose items are two kinds of such lists."""
    return {"type": "array", "minItems": least, "items": {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/other"}]}}


MANY_LISTS = {
    "recursive": {**lists(1), "$defs": {"other": lists(2)}},
    "alternatives": {
        "type": "array",
        "minItems": 20,
        "items": {"anyOf": [{"type": "array", "items": {"const": number}} for number in range(400)]},
    },
}


@pytest.mark.parametrize("name", MANY_LISTS)
async def test_schemas_whose_alternatives_begin_alike_cost_bounded_time(client: Client, name: str) -> None:
    backend = client.scheduler.backend
    brackets = {
        str(token): 100.0
        for token in range(client.scheduler.info.vocabulary)
        if backend.piece(token) in (b"[", b"]", b",", b"],[")
    }
    form = {"type": "json_schema", "json_schema": {"schema": MANY_LISTS[name]}}
    fields = {"logit_bias": brackets, "temperature": 0, "max_tokens": 40}
    status, body = await client.chat("x", response_format=form, **fields)
    assert status in (200, 400), body
    parameters = {"type": "object", "properties": {"a": MANY_LISTS["alternatives"]}, "required": ["a"]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    status, body = await client.chat("x", tools=tools, tool_choice="required", **fields)
    assert status in (200, 400), body
    assert (await client.chat("Hello", max_tokens=4))[0] == 200


async def test_a_choice_of_objects_is_written(client: Client) -> None:
    def shape(kind: str, value: object) -> dict[str, object]:
        properties = {"kind": {"const": kind}, "value": value}
        return {"type": "object", "properties": properties, "required": ["kind", "value"]}

    schema = {"anyOf": [shape("number", {"type": "integer"}), shape("switch", {"type": "boolean"})]}
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    tools = [{"type": "function", "function": {"name": "set", "parameters": {**shape("x", schema)}}}]
    complete = 0
    for seed in range(3):
        fields = {"temperature": 1.5, "seed": seed, "max_tokens": 120}
        _, body = await client.chat("Set the lamp.", response_format=form, **fields)
        if body["choices"][0]["finish_reason"] == "stop":
            written = json.loads(body["choices"][0]["message"]["content"])
            assert isinstance(written["value"], bool) == (written["kind"] == "switch")
            complete += 1
        _, body = await client.chat("Set the lamp.", tools=tools, tool_choice="required", **fields)
        if body["choices"][0]["finish_reason"] == "tool_calls":
            function = body["choices"][0]["message"]["tool_calls"][0]["function"]
            assert json.loads(function["arguments"])["value"]["kind"] in ("number", "switch")
            complete += 1
    assert complete
