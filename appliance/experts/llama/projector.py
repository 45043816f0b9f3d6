"""From an image to rows of embeddings, through mtmd (llama.cpp's tools/mtmd/mtmd.h).

The projector is a second GGUF file with a context of its own, so images are computed beside the engine thread. In
prompts an image's rows have token ids below zero, made of a keyed hash of its pixels: prompts with the same image share
cells, others do not. The key is drawn when the process starts, so nobody can make two images that share ids.
"""

import ctypes
import hashlib
import os
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import mtmd_cpp

from appliance.experts.backend import Image, Picture, Run
from appliance.experts.errors import ModelLoadError, StepError, UnsupportedError
from appliance.experts.llama import log as llama_log

REMEMBERED = 8
"""Images whose rows are kept for the next request."""


class _Rows(Picture):
    """A picture with its rows of embeddings."""

    def __init__(self, first: int, tokens: tuple[int, ...], rows: npt.NDArray[np.float32]) -> None:
        super().__init__(tokens)
        self.first, self.rows = first, rows


class LlamaProjector:
    """A loaded projector."""

    def __init__(self, path: Path, model: int, *, threads: int) -> None:
        """Load it. Raises ModelLoadError."""
        if not path.is_file():
            raise ModelLoadError(f"{path}: there is no projector.")
        parameters = mtmd_cpp.mtmd_context_params_default()
        parameters.n_threads = threads
        parameters.print_timings = parameters.warmup = False
        llama_log.take_errors()
        llama_log.capture_projector()
        self._context = mtmd_cpp.mtmd_init_from_file(os.fsencode(path), model, parameters)
        if not self._context:
            reason = "; ".join(dict.fromkeys(llama_log.take_errors()))
            raise ModelLoadError(f"{path}: the projector does not fit the model or can't be loaded: {reason}")
        if not mtmd_cpp.mtmd_support_vision(self._context) or mtmd_cpp.mtmd_decode_use_mrope(self._context):
            self.close()
            raise ModelLoadError(f"{path}: projectors without images, or with M-RoPE (Qwen-VL), can't be served.")
        self.width = llama_cpp.llama_model_n_embd_inp(model)
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._recent: OrderedDict[bytes, _Rows] = OrderedDict()
        self._alive: weakref.WeakSet[_Rows] = weakref.WeakSet()

    def picture(self, image: Image) -> Picture:
        """Compute an image's rows. Thread-safe; takes as long as the model needs to see. Raises UnsupportedError."""
        digest = hashlib.blake2b(
            b"%d %d " % (image.width, image.height) + image.pixels, key=self._key, digest_size=16
        ).digest()
        with self._lock:
            picture = self._recent.get(digest)
            if picture is None:
                picture = self._recent[digest] = self._compute(image, digest)
                self._alive.add(picture)
            self._recent.move_to_end(digest)
            if len(self._recent) > REMEMBERED:
                self._recent.popitem(last=False)
        return picture

    def rows(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the rows that ids below zero stand for, all of one image. Raises StepError."""
        begin, end = -1 - tokens[0], -1 - tokens[-1] + 1
        for picture in list(self._alive):
            if picture.first <= begin and end <= picture.first + len(picture.rows):
                return picture.rows[begin - picture.first : end - picture.first]
        raise StepError("An image's rows are gone.")

    def close(self) -> None:
        """Free it."""
        mtmd_cpp.mtmd_free(self._context)

    def _compute(self, image: Image, digest: bytes) -> _Rows:
        marker = mtmd_cpp.mtmd_default_marker()
        text = mtmd_cpp.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
        data = (ctypes.c_uint8 * len(image.pixels)).from_buffer_copy(image.pixels)
        bitmap = mtmd_cpp.mtmd_bitmap_init(image.width, image.height, data)
        chunks = mtmd_cpp.mtmd_input_chunks_init()
        try:
            bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
            if mtmd_cpp.mtmd_tokenize(self._context, chunks, ctypes.byref(text), bitmaps, 1):
                raise UnsupportedError("The projector does not take this image.", param="messages")
            return self._collect(chunks, int.from_bytes(digest[:4]) >> 2)
        finally:
            mtmd_cpp.mtmd_input_chunks_free(chunks)
            mtmd_cpp.mtmd_bitmap_free(bitmap)

    def _collect(self, chunks: Any, first: int) -> _Rows:
        tokens: list[int] = []
        parts: list[npt.NDArray[np.float32]] = []
        used = 0
        for index in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
            chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, index)
            count = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_TEXT:
                length = ctypes.c_size_t()
                ids = mtmd_cpp.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(length))
                tokens += [token for token in ids[: length.value] if token >= 0]  # -1: the model has no such mark
                continue
            if mtmd_cpp.mtmd_decode_use_non_causal(self._context, chunk):
                raise UnsupportedError("Projectors whose attention looks ahead (Gemma 3) can't be served.")
            if mtmd_cpp.mtmd_encode_chunk(self._context, chunk):
                raise StepError("llama.cpp could not compute the image.")
            rows = mtmd_cpp.mtmd_get_output_embd(self._context)
            parts.append(np.ctypeslib.as_array(cast("Any", rows), (count, self.width)).copy())
            tokens += range(-1 - first - used, -1 - first - used - count, -1)
            used += count
        return _Rows(first, tuple(tokens), np.concatenate(parts))


class EmbeddedBatch:
    """A llama_batch of embeddings for one sequence."""

    def __init__(self, capacity: int, width: int) -> None:
        self._rows = np.zeros((capacity, width), np.float32)
        self._positions = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._sequence = np.zeros(1, np.int32)
        self._pointers = np.full(capacity, self._sequence.ctypes.data, np.uintp)
        self._outputs = np.zeros(capacity, np.int8)
        self._native = batch = llama_cpp.llama_batch()
        types = {field[0]: field[1] for field in cast("Any", llama_cpp.llama_batch)._fields_}
        for name, array in (
            ("embd", self._rows),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self._outputs),
        ):
            setattr(batch, name, array.ctypes.data_as(types[name]))

    def fill(self, run: Run, rows: npt.NDArray[np.float32]) -> object:
        """Take a run's rows; return the native batch."""
        count = len(rows)
        self._rows[:count] = rows
        self._positions[:count] = range(run.position, run.position + count)
        self._sequence[0] = run.seq
        self._native.n_tokens = count
        return self._native


def segments(run: Run) -> list[Run]:
    """Return a run in pieces of either tokens or an image's rows; the last one has the run's outputs."""
    starts = [0]
    for at in range(1, len(run.tokens)):
        before, token = run.tokens[at - 1], run.tokens[at]
        if (before < 0) != (token < 0) or (token < 0 and token != before - 1):
            starts.append(at)
    ends = [*starts[1:], len(run.tokens)]
    return [
        Run(run.seq, run.position + start, run.tokens[start:end], outputs=run.outputs if end == ends[-1] else 0)
        for start, end in zip(starts, ends, strict=True)
    ]
