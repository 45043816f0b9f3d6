import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.experts.chat.gbnf import check_gbnf
from appliance.experts.errors import InvalidRequestError

GOOD = (
    'root ::= "yes" | "no"',
    'root ::= item+ # a list\nitem ::= "- " [^\\n]* "\\n"\n',
    'root ::= (word " "){2,5} word\nword ::= [a-zA-Z\\]"]{1,4} | .',
    'root ::= ""',
    "root ::= (" + " | ".join(f'"x"{{{count}}}' for count in range(1, 40)) + ') "x"*',
    'root ::= "a" |\n  "\\x41" ("b" | )?\n',
)
HOSTILE = {
    "left recursion": 'root ::= root "a" | "a"',
    "mutual recursion": 'root ::= a\na ::= b "x"\nb ::= a | "y"',
    "exponential ways": 'root ::= "x" root "b" | "x" root "c" | "x"',
    "large repetition": 'root ::= (("a"{999}){999}){999}',
    "doubling": "\n".join(["root ::= r0", *(f"r{n} ::= r{n + 1} r{n + 1}" for n in range(30)), 'r30 ::= "a"']),
    "alternatives": "\n".join(["root ::= r0", *(f"r{n} ::= r{n + 1} | r{n + 1}" for n in range(30)), 'r30 ::= "a"']),
    "nesting": "root ::= " + "(" * 5000 + '"a"' + ")" * 5000,
    "chain": "\n".join(["root ::= r0", *(f"r{n} ::= r{n + 1}" for n in range(200)), 'r200 ::= "a"']),
    "length": "root ::= " + '"a" ' * 10_000,
    "no root": 'roots ::= "a"',
    "unknown rule": "root ::= nowhere",
    "twice": 'root ::= "a"\nroot ::= "b"',
    "nothing to repeat": "root ::= *",
    "open": 'root ::= ("a"',
    "closed": 'root ::= "a")',
    "quote": 'root ::= "a',
    "token": "root ::= <|im_end|>",
    "token number": "root ::= <[1000]>",
    "optional parts": "root ::= " + '("a" | "b" | "x")? ' * 40 + '"z"',
    "bounds": 'root ::= "a"{5,2}',
    "NUL": 'root ::= "\0"',
    "surrogate": 'root ::= "\ud800"',
    "empty": "",
    "text": "hello",
    "rule inside": 'root ::= ("a"\nother ::= "b")',
}


@pytest.mark.parametrize("text", GOOD)
def test_grammars_that_repeat_are_taken(text: str) -> None:
    check_gbnf(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_what_could_take_all_time_or_memory_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        check_gbnf(HOSTILE[name])
    assert refusal.value.param == "grammar"


@given(st.text(alphabet='root:=ab"[]()|*+?{}0123, \n\\#-.<>', max_size=80))
def test_nothing_else_is_raised(text: str) -> None:
    for grammar in (text, f"root ::= {text}"):
        with contextlib.suppress(InvalidRequestError):
            check_gbnf(grammar)
