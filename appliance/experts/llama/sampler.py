"""llama.cpp sampler chains, with a grammar that can be put in force at any token.

llama.cpp ends the process (C++ exception through C, GGML_ABORT) when a grammar is told of a token it does not
allow, also in its own lazy mode when the text around the trigger does not fit. So a grammar here is never
lazy, is not part of the chain, and hears only of tokens it was asked about before; and the choice among the
tokens it allows is made by the same chain. Asking about the chain's own choice first makes the usual case
cheap: one token, not the vocabulary. Clients' own grammars are `client_grammar.py`'s.
"""

import ctypes
import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import llama_cpp
import numpy as np
import numpy.typing as npt

from appliance.experts.backend import Grammar
from appliance.experts.errors import InvalidRequestError
from appliance.experts.llama.client_grammar import GrammarState
from appliance.experts.sampling import Sampling

RANDOM_SEED = 0xFFFFFFFF
"""LLAMA_DEFAULT_SEED: llama.cpp draws a seed."""

LIKELY = 256
"""Candidates tried under a grammar before the whole vocabulary."""

TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""`llama_token_data`."""

_ROOT = b"root"


class _State(Protocol):
    """How far an answer has come in a grammar."""

    def allows(self, token: int) -> bool: ...

    def filter(self, candidates: npt.NDArray[Any]) -> npt.NDArray[Any]: ...

    def accept(self, token: int) -> None: ...

    def close(self) -> None: ...


class LlamaSampler:
    """A request's sampler; see `backend.Sampler`."""

    def __init__(
        self,
        *,
        context: int,
        vocab: int,
        vocabulary: int,
        rows: Sequence[int],
        sampling: Sampling,
    ) -> None:
        """Take the context and vocabulary pointers, the vocabulary's size, and where each run's logits are.

        `rows` belongs to the backend and changes with every batch.
        """
        self._rows = rows
        self._context = context
        self._vocab = vocab
        self._vocabulary = vocabulary
        self._grammar: _State | None = None
        self._chain: int | None = _build_chain(sampling, vocabulary)
        self._takes_best = sampling.greedy and not sampling.penalises and not sampling.logit_bias
        self._row_type = ctypes.c_float * vocabulary

    def sample(self, row: int, output: int = 0) -> int | None:
        """Choose from the logits of the batch's given run; None if the grammar allows no token at all."""
        index = self._rows[row] + output
        grammar = self._grammar
        if grammar is None and self._takes_best:
            # What the chain would do, in a fifteenth of its time: it makes a list of all candidates first.
            return int(self._logits(index).argmax())
        if grammar is None:
            return cast("int", llama_cpp.llama_sampler_sample(self._chain, self._context, index))
        logits = self._logits(index)
        token = self._choose(_candidates(logits, None))
        if token is None or not grammar.allows(token):
            likely = np.argpartition(logits, -LIKELY)[-LIKELY:] if self._vocabulary > LIKELY else None
            token = self._choose(grammar.filter(_candidates(logits, likely)))
            if token is None and likely is not None:
                token = self._choose(grammar.filter(_candidates(logits, None)))
        if token is None or not grammar.allows(token):
            return None
        llama_cpp.llama_sampler_accept(self._chain, token)
        grammar.accept(token)
        return token

    def logprobs(self, row: int, token: int, top: int, output: int = 0) -> tuple[float, list[tuple[int, float]]]:
        """Return the log-softmax of the raw logits at a token and at the `top` best ones."""
        logits = self._logits(self._rows[row] + output)
        best = float(logits.max())
        total = best + math.log(float(np.exp(logits - best).sum(dtype=np.float64)))
        if not top:
            return float(logits[token]) - total, []
        ids = np.argpartition(logits, -top)[-top:] if top < len(logits) else np.arange(len(logits))
        ids = ids[np.argsort(-logits[ids], kind="stable")]
        return float(logits[token]) - total, [(int(other), float(logits[other]) - total) for other in ids]

    def _logits(self, index: int) -> npt.NDArray[np.float32]:
        """Return the logits of a token of the last batch, without a copy."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, index)
        return np.frombuffer(self._row_type.from_address(ctypes.addressof(pointer.contents)), np.float32)

    def constrain(self, grammar: Grammar | None) -> None:
        """Enforce a grammar from the next token on."""
        self._drop_grammar()
        if isinstance(grammar, str):
            self._grammar = _LlamaGrammar(self._vocab, grammar)
        elif grammar is not None:
            self._grammar = GrammarState(grammar)

    def close(self) -> None:
        """Free the chain and the grammar."""
        self._drop_grammar()
        if self._chain is not None:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None

    def _drop_grammar(self) -> None:
        if self._grammar is not None:
            self._grammar.close()
            self._grammar = None

    def _choose(self, candidates: npt.NDArray[Any]) -> int | None:
        if not len(candidates):
            return None
        array = _as_array(candidates)
        llama_cpp.llama_sampler_apply(self._chain, ctypes.byref(array))
        if not 0 <= array.selected < array.size:
            return None
        return int(array.data[array.selected].id)


class _LlamaGrammar:
    """llama.cpp's grammar engine, for grammars that are made here."""

    def __init__(self, vocab: int, source: str) -> None:
        self._grammar = llama_cpp.llama_sampler_init_grammar(vocab, source.encode(), _ROOT)
        if not self._grammar:
            raise InvalidRequestError("llama.cpp does not take the grammar of this request.", param="grammar")
        self._one = (llama_cpp.llama_token_data * 1)()

    def allows(self, token: int) -> bool:
        one = self._one
        one[0] = llama_cpp.llama_token_data(token, 0.0, 0.0)
        array = llama_cpp.llama_token_data_array(data=one, size=1, selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return not math.isinf(one[0].logit)

    def filter(self, candidates: npt.NDArray[Any]) -> npt.NDArray[Any]:
        array = _as_array(candidates)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
        return np.ascontiguousarray(candidates[np.isfinite(candidates["logit"])])

    def accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self._grammar, token)

    def close(self) -> None:
        llama_cpp.llama_sampler_free(self._grammar)


def _candidates(logits: npt.NDArray[np.float32], ids: npt.NDArray[np.intp] | None) -> npt.NDArray[Any]:
    """Return `llama_token_data` for the given tokens or for all."""
    data = np.zeros(len(logits) if ids is None else len(ids), TOKEN_DATA)
    data["id"] = np.arange(len(logits)) if ids is None else ids
    data["logit"] = logits if ids is None else logits[ids]
    return data


def _as_array(candidates: npt.NDArray[Any]) -> llama_cpp.llama_token_data_array:
    data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
    return llama_cpp.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)


def _build_chain(sampling: Sampling, vocabulary: int) -> int:
    """Return a new chain in llama.cpp's usual order."""
    chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())

    def add(sampler: int) -> None:
        llama_cpp.llama_sampler_chain_add(chain, sampler)

    if sampling.logit_bias:
        biases = (llama_cpp.llama_logit_bias * len(sampling.logit_bias))()
        for bias, (token, value) in zip(biases, sampling.logit_bias.items(), strict=True):
            bias.token, bias.bias = token, value
        add(llama_cpp.llama_sampler_init_logit_bias(vocabulary, len(biases), biases))
    if sampling.penalises:
        add(
            llama_cpp.llama_sampler_init_penalties(
                vocabulary,
                sampling.penalty_last_n,
                sampling.repeat_penalty,
                sampling.frequency_penalty,
                sampling.presence_penalty,
            )
        )
    if sampling.greedy:
        add(llama_cpp.llama_sampler_init_greedy())
        return cast("int", chain)
    if sampling.top_k > 0:
        add(llama_cpp.llama_sampler_init_top_k(sampling.top_k))
    if sampling.top_p < 1.0:
        add(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0.0:
        add(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
    add(llama_cpp.llama_sampler_init_temp(sampling.temperature))
    seed = RANDOM_SEED if sampling.seed is None else sampling.seed
    add(llama_cpp.llama_sampler_init_dist(seed & RANDOM_SEED))
    return cast("int", chain)
