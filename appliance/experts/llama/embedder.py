"""Embeddings from a second context of the same model."""

from collections.abc import Sequence
from typing import cast

import llama_cpp
import numpy as np

from appliance.experts.errors import ContextExceededError, StepError, UnsupportedError
from appliance.experts.settings import EngineSettings

MOST_TOKENS = 2048
"""A text is pooled in one piece, so this is also the size of the compute buffers."""


class LlamaEmbedder:
    """A context that pools; mean pooling unless the model has its own kind."""

    def __init__(self, model: int, settings: EngineSettings, threads: int) -> None:
        """Make the context. Raises UnsupportedError."""
        self._limit = min(settings.context_tokens, MOST_TOKENS)
        self._width = llama_cpp.llama_model_n_embd_out(model)
        self._context = _new_context(model, self._limit, threads, llama_cpp.LLAMA_POOLING_TYPE_UNSPECIFIED)
        if llama_cpp.llama_pooling_type(self._context) == llama_cpp.LLAMA_POOLING_TYPE_NONE:
            self.close()
            self._context = _new_context(model, self._limit, threads, llama_cpp.LLAMA_POOLING_TYPE_MEAN)

    def embed(self, tokens: Sequence[int]) -> list[float]:
        """Return the embedding of length 1 of a text."""
        if len(tokens) > self._limit:
            raise ContextExceededError(prompt_tokens=len(tokens), limit=self._limit, param="input")
        if memory := llama_cpp.llama_get_memory(self._context):
            llama_cpp.llama_memory_clear(memory, False)
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        if (code := llama_cpp.llama_decode(self._context, batch)) != 0:
            raise StepError(f"llama.cpp could not compute the embedding (code {code}).")
        pointer = llama_cpp.llama_get_embeddings_seq(self._context, 0)
        if not pointer:
            raise StepError("llama.cpp returned no embedding.")
        vector = np.ctypeslib.as_array(pointer, (self._width,)).astype(np.float64)
        length = float(np.linalg.norm(vector))
        return cast("list[float]", (vector / length if length else vector).tolist())

    def close(self) -> None:
        """Free the context."""
        llama_cpp.llama_free(self._context)


def _new_context(model: int, tokens: int, threads: int, pooling: int) -> int:
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = tokens
    parameters.n_seq_max = 1
    parameters.n_threads = parameters.n_threads_batch = threads
    parameters.embeddings = True
    parameters.pooling_type = pooling
    context = llama_cpp.llama_init_from_model(model, parameters)
    if not context:
        raise UnsupportedError("This model can't be used for embeddings.")
    return cast("int", context)
