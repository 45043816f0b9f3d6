"""Grammars from clients, enforced by llguidance (https://github.com/guidance-ai/llguidance).

llama.cpp's own grammar engine keeps every reading of an ambiguous text on a stack of its own and follows them into
each candidate token: a grammar of two lines takes hours or all memory. llguidance's Earley parser shares what
readings have in common, counts what it does, and gives up at a limit.
"""

import ctypes
import re
import threading
from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

from appliance.experts.backend import ClientGrammar
from appliance.experts.errors import InvalidRequestError

LONGEST_TOKEN = 1024
"""Bytes; longer ones are left out of answers under a grammar."""

MOST_BRACKETS = 64
"""Depth of brackets; what reads them calls itself for each."""

LARGEST = 64 * 1024
"""Characters; clients' own grammars are shorter, and those made of schemas can be longer."""

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"|\[(?:[^\]\\]|\\.)*\]', re.DOTALL)

_LIMITS = LLParserLimits(
    step_lexer_fuel=200_000,  # about 15 ms
    step_max_items=150_000,  # about 8 ms
    max_lexer_states=20_000,  # about 40 MB
    max_grammar_size=100_000,
    verbose_errors=False,
)


class ClientGrammars:
    """Compiles grammars for one vocabulary."""

    def __init__(self, vocab: int) -> None:
        """Take the pointer to the vocabulary."""
        self._vocab = vocab
        self._tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()

    def compile(self, source: str, param: str) -> ClientGrammar:
        """Compile GBNF. The first call takes about a second for the vocabulary. Raises InvalidRequestError."""
        if len(source) > LARGEST:
            raise _refusal(param, f"the grammar has more than {LARGEST} characters")
        if any("\ud800" <= character <= "\udfff" for character in source):
            raise _refusal(param, "it has a lone surrogate")
        if _deepest(source) > MOST_BRACKETS:
            raise _refusal(param, f"brackets are more than {MOST_BRACKETS} deep")
        try:
            lark = gbnf_to_lark(source)
        except GbnfToLarkError as error:
            raise _refusal(param, str(error)) from error
        except Exception as error:  # it raises whatever it meets
            raise _refusal(param, str(error) or type(error).__name__) from error
        matcher = LLMatcher(self._tokens(), LLMatcher.grammar_from_lark(lark), log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise _refusal(param, matcher.get_error())
        return ClientGrammar(source, matcher)

    def _tokens(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = _tokenizer(self._vocab)
            return self._tokenizer


class GrammarState:
    """How far one answer has come in a client's grammar."""

    def __init__(self, grammar: ClientGrammar) -> None:
        if not isinstance(grammar.compiled, LLMatcher):
            raise TypeError("The grammar was compiled by another backend.")
        self._matcher = grammar.compiled.deep_copy()
        self._mask: npt.NDArray[np.bool_] | None = None

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        return bool(self._allowed()[token])

    def filter(self, candidates: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the `llama_token_data` of those that may come next."""
        return np.ascontiguousarray(candidates[self._allowed()[candidates["id"]]])

    def accept(self, token: int) -> None:
        """Go on by a token that is allowed."""
        self._mask = None
        self._matcher.consume_token(token)

    def close(self) -> None:
        """There is nothing that Python does not free."""

    def _allowed(self) -> npt.NDArray[np.bool_]:
        if self._mask is None:
            data = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            if self._matcher.is_error():
                raise _refusal(
                    "grammar", f"it became too complex at this point of the answer: {self._matcher.get_error()}"
                )
            self._mask = np.unpackbits(data, bitorder="little").astype(np.bool_)
        return self._mask


def _tokenizer(vocab: int) -> LLTokenizer:
    """Tell llguidance of every token; control tokens, which are no text, have 0xff in front."""
    count = llama_cpp.llama_vocab_n_tokens(vocab)
    buffer = ctypes.create_string_buffer(LONGEST_TOKEN)
    tokens: list[bytes] = []
    for token in range(count):
        length = llama_cpp.llama_token_to_piece(vocab, token, buffer, len(buffer), 0, True)
        text = buffer.raw[: max(length, 0)]
        control = llama_cpp.llama_vocab_get_attr(vocab, token) & llama_cpp.LLAMA_TOKEN_ATTR_CONTROL
        tokens.append(b"\xff" + text if control else text)
    library = llama_cpp.llama_cpp._lib  # noqa: SLF001  # there is no other way
    tokenize = ctypes.cast(library.llama_tokenize, ctypes.c_void_p).value
    ends = [token for token in range(count) if llama_cpp.llama_vocab_is_eog(vocab, token)]
    # A static method that the type stubs leave out.
    build: Callable[..., LLTokenizer] = LLTokenizer.from_llamacpp  # type: ignore[attr-defined]
    return build(tokens=tokens, vocab_ptr=vocab, tokenize_fptr=tokenize, eos_token=ends, slices=None)


def _deepest(source: str) -> int:
    depth = deepest = 0
    for sign in re.sub(_QUOTED, "", source):
        depth += (sign == "(") - (sign == ")")
        deepest = max(deepest, depth)
    return deepest


def _refusal(param: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param}: {reason[:500].strip()}", param=param)
