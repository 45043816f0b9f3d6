"""Embeddings and relevance from contexts of their own, in steps.

A model that reads from left to right (a decoder) is computed like a prompt, in chunks of any size, and pooled here: so
a long text stalls nobody. A model that reads a whole text at once (an encoder), and the ranking head, are computed a
text at a time, pooled by llama.cpp.
"""

import ctypes
import math
from collections.abc import Sequence
from typing import Any, cast

import llama_cpp
import numpy as np
import numpy.typing as npt

from appliance.experts.backend import Steps
from appliance.experts.errors import StepError, UnsupportedError
from appliance.experts.settings import EngineSettings

MOST_TOKENS = 2048
"""Of a text; the size of the compute buffers where it is computed in one piece."""

SEQUENCES = 16
"""Texts in one batch."""

READ_AT_ONCE = {"gemma-embedding", "modern-bert", "neo-bert"}
"""Architectures whose attention looks ahead although their files may not say so."""

type Vector = npt.NDArray[np.float64]


class LlamaEmbedder:
    """A context that turns texts into vectors: normalised embeddings, or the relevance of pairs."""

    def __init__(self, model: int, settings: EngineSettings, threads: int, *, ranks: bool = False) -> None:
        """Make the context. Raises UnsupportedError."""
        self._ranks = ranks
        self._limit = min(settings.context_tokens, MOST_TOKENS)
        # llama.cpp ends the process where a batch has no room for a token of each sequence.
        self._step = max(min(settings.batch_tokens, self._limit), SEQUENCES)
        self._width = llama_cpp.llama_model_n_cls_out(model) if ranks else llama_cpp.llama_model_n_embd_out(model)
        self._pooling = _pooling(model)
        self._chunked = not ranks and _reads_in_order(model)
        size = self._step if self._chunked else self._limit
        kind = llama_cpp.LLAMA_POOLING_TYPE_RANK if ranks else self._pooling
        self._context = _new_context(
            model,
            tokens=self._limit + size,
            batch=size,
            threads=threads,
            pooling=llama_cpp.LLAMA_POOLING_TYPE_NONE if self._chunked else kind,
        )
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(size, 0, 1)

    def compute(self, texts: Sequence[Sequence[int]]) -> Steps:
        """Compute the vectors of texts of at most MOST_TOKENS tokens, a batch at each step."""
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)
        vectors = yield from self._in_chunks(texts) if self._chunked else self._whole(texts)
        return [self._finished(vector) for vector in vectors]

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)

    def _finished(self, vector: Vector) -> list[float]:
        if self._ranks:
            # A single number is a logit; of several (Qwen3's yes and no) llama.cpp has made probabilities.
            return [1 / (1 + math.exp(-max(min(float(vector[0]), 60.0), -60.0)))] if len(vector) == 1 else [vector[0]]
        length = float(np.linalg.norm(vector))
        return cast("list[float]", (vector / length if length else vector).tolist())

    def _whole(self, texts: Sequence[Sequence[int]]) -> Any:
        """Compute as many whole texts at a step as fit into it, at least one."""
        vectors: list[Vector] = []
        while len(vectors) < len(texts):
            group: list[Sequence[int]] = []
            for text in texts[len(vectors) : len(vectors) + SEQUENCES]:
                if group and sum(map(len, group)) + len(text) > self._step:
                    break
                group.append(text)
            self._start()
            for seq, text in enumerate(group):
                self._add(text, 0, seq, outputs=range(len(text)))
            self._decode()
            for seq in range(len(group)):
                pointer = llama_cpp.llama_get_embeddings_seq(self._context, seq)
                if not pointer:
                    raise StepError("llama.cpp returned no vector.")
                vectors.append(np.ctypeslib.as_array(pointer, (self._width,)).astype(np.float64))
            if self._memory:
                llama_cpp.llama_memory_clear(self._memory, False)
            yield
        return vectors

    def _in_chunks(self, texts: Sequence[Sequence[int]]) -> Any:
        """Compute at most `batch_tokens` tokens at a step, of several texts where they are short."""
        sums = [np.zeros(self._width) for _ in texts]
        text = at = 0
        while text < len(texts):
            pieces: list[tuple[int, range]] = []
            room = self._step
            self._start()
            while room and text < len(texts) and len(pieces) < SEQUENCES:
                count = min(room, len(texts[text]) - at)
                outputs = self._outputs(range(at, at + count), len(texts[text]))
                self._add(texts[text][at : at + count], at, text % SEQUENCES, outputs=outputs)
                pieces.append((text, outputs))
                room, at = room - count, at + count
                if at == len(texts[text]):
                    text, at = text + 1, 0
            self._decode()
            self._collect(pieces, sums)
            for done, _ in pieces:
                if done != text:
                    llama_cpp.llama_memory_seq_rm(self._memory, done % SEQUENCES, -1, -1)
            yield
        return sums

    def _outputs(self, positions: range, length: int) -> range:
        """Return which of a text's tokens, counted from the first position, are pooled."""
        if self._pooling == llama_cpp.LLAMA_POOLING_TYPE_LAST:
            return range(len(positions) - 1, len(positions)) if positions.stop == length else range(0)
        if self._pooling == llama_cpp.LLAMA_POOLING_TYPE_CLS:
            return range(1) if positions.start == 0 else range(0)
        return range(len(positions))

    def _collect(self, pieces: Sequence[tuple[int, range]], sums: list[Vector]) -> None:
        total = sum(len(outputs) for _, outputs in pieces)
        if not total:
            return
        pointer = llama_cpp.llama_get_embeddings(self._context)
        if not pointer:
            raise StepError("llama.cpp returned no embeddings.")
        rows = np.ctypeslib.as_array(pointer, (total, self._width))
        at = 0
        for text, outputs in pieces:
            sums[text] += rows[at : at + len(outputs)].sum(axis=0, dtype=np.float64)
            at += len(outputs)

    def _start(self) -> None:
        self._batch.n_tokens = 0

    def _add(self, tokens: Sequence[int], position: int, seq: int, *, outputs: range) -> None:
        batch = self._batch
        for offset, token in enumerate(tokens):
            at = batch.n_tokens + offset
            batch.token[at] = token
            batch.pos[at] = position + offset
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = seq
            batch.logits[at] = offset in outputs
        batch.n_tokens += len(tokens)

    def _decode(self) -> None:
        if (code := llama_cpp.llama_decode(self._context, self._batch)) != 0:
            raise StepError(f"llama.cpp could not compute the vectors (code {code}).")


def text_marks(model: int) -> dict[str, Any]:
    """Return what ModelInfo says of texts to embed and pairs to rank."""
    vocab = llama_cpp.llama_model_get_vocab(model)
    bare, dressed = (_tokens(vocab, b"a", special) for special in (False, True))
    at = next((at for at in range(len(dressed)) if dressed[at : at + len(bare)] == bare), 0)
    eos, sep = llama_cpp.llama_vocab_eos(vocab), llama_cpp.llama_vocab_sep(vocab)
    begin = (llama_cpp.llama_vocab_bos(vocab),) if llama_cpp.llama_vocab_get_add_bos(vocab) else ()
    end = (eos if eos >= 0 else sep,) if llama_cpp.llama_vocab_get_add_eos(vocab) else ()
    middle = (*end, sep) if llama_cpp.llama_vocab_get_add_sep(vocab) else end
    prompt = llama_cpp.llama_model_chat_template(model, b"rerank")
    return {
        "ranks": _pooling(model) == llama_cpp.LLAMA_POOLING_TYPE_RANK,
        "text_start": tuple(dressed[:at]),
        "text_end": tuple(dressed[at + len(bare) :]),
        "pair_marks": (begin, middle, end),
        "rank_prompt": prompt.decode(errors="replace") if prompt else None,
    }


def _tokens(vocab: int, text: bytes, special: bool) -> list[int]:  # noqa: FBT001  # llama.cpp's own parameter
    tokens = (llama_cpp.llama_token * 16)()
    count = llama_cpp.llama_tokenize(vocab, text, len(text), tokens, len(tokens), special, False)
    return tokens[: max(count, 0)]


def _metadata(model: int, key: str) -> str:
    """Return a value of the model's metadata, whose key begins with the architecture; empty if there is none."""
    return _value(model, f"{_architecture(model)}.{key}")


def _architecture(model: int) -> str:
    return _value(model, "general.architecture")


def _value(model: int, key: str) -> str:
    buffer = ctypes.create_string_buffer(128)
    found = llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, len(buffer)) >= 0
    return buffer.value.decode(errors="replace") if found else ""


def _pooling(model: int) -> int:
    """Return the model's own pooling, or mean pooling."""
    text = _metadata(model, "pooling_type")
    kind = int(text) if text.isascii() and text.isdigit() else llama_cpp.LLAMA_POOLING_TYPE_NONE
    return kind or llama_cpp.LLAMA_POOLING_TYPE_MEAN


def _reads_in_order(model: int) -> bool:
    """Whether a text can be computed in chunks: causal attention, and cells of a sequence can be removed."""
    return bool(
        llama_cpp.llama_model_has_decoder(model)
        and not llama_cpp.llama_model_has_encoder(model)
        and not llama_cpp.llama_model_is_recurrent(model)
        and not llama_cpp.llama_model_is_hybrid(model)
        and _metadata(model, "attention.causal") != "false"
        and _architecture(model) not in READ_AT_ONCE
    )


def _new_context(model: int, *, tokens: int, batch: int, threads: int, pooling: int) -> int:
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = tokens
    parameters.n_batch = parameters.n_ubatch = batch
    parameters.n_seq_max = SEQUENCES
    parameters.kv_unified = True
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.embeddings = True
    parameters.pooling_type = pooling
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise UnsupportedError("This model can't be used for embeddings or ranking.")
    return cast("int", context)
