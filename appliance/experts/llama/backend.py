"""llama.cpp as a backend, on llama-cpp-python's low-level bindings (llama.h).

What ends the process and is therefore never let through: a batch larger than n_batch, a row without logits,
a sequence id out of range, a token a grammar does not allow (see `sampler.py`).
"""

import ctypes
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import llama_cpp
import numpy as np
import numpy.typing as npt

from appliance.experts.backend import ClientGrammar, Image, ModelInfo, Picture, Run, Steps
from appliance.experts.chat import reasoning
from appliance.experts.chat.formats import MARKERS
from appliance.experts.chat.formats.hermes import CLOSE, OPEN
from appliance.experts.errors import EngineBrokenError, ModelLoadError, StepError, UnsupportedError
from appliance.experts.llama import log as llama_log
from appliance.experts.llama.client_grammar import ClientGrammars
from appliance.experts.llama.devices import has_gpu, load_backends, worker_devices
from appliance.experts.llama.embedder import MOST_TOKENS, LlamaEmbedder, text_marks
from appliance.experts.llama.identity import fingerprint
from appliance.experts.llama.projector import EmbeddedBatch, LlamaProjector, segments
from appliance.experts.llama.sampler import LlamaSampler
from appliance.experts.sampling import Sampling
from appliance.experts.settings import EngineSettings
from appliance.experts.tuning.costs import CostModel
from appliance.experts.tuning.machine import usable_cores

_log = logging.getLogger(__name__)

_MAGIC = b"GGUF"
_CONTROL = 1 << 3  # LLAMA_TOKEN_ATTR_CONTROL
_SHOWN_CONTROL = frozenset(text.encode() for text in (*MARKERS, reasoning.OPEN, reasoning.CLOSE))
"""Control tokens in some models, and text to us."""


class LlamaBackend:
    """A loaded GGUF with one context; see `backend.Backend`."""

    def __init__(self, path: Path, settings: EngineSettings) -> None:
        """Load the model. Raises ModelLoadError."""
        llama_log.capture()
        self._threads = settings.threads or usable_cores()
        self.costs: CostModel | None = None
        """What a step costs on this machine, once it was measured."""
        self._model = _load(path, settings)
        self._settings = settings = settings.limited_to(llama_cpp.llama_model_n_ctx_train(self._model))
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._batch_tokens = max(settings.batch_tokens, settings.slots)
        self._context = self._new_context(path)
        self._open = True
        self._memory = llama_cpp.llama_get_memory(self._context)
        self.divisible = not (
            llama_cpp.llama_model_is_recurrent(self._model) or llama_cpp.llama_model_is_hybrid(self._model)
        )
        self._batch = _Batch(self._batch_tokens)
        self._embedder: LlamaEmbedder | None = None
        self._ranker: LlamaEmbedder | None = None
        self._projector = (
            LlamaProjector(settings.projector, self._model, threads=self._threads) if settings.projector else None
        )
        self._embedded = EmbeddedBatch(
            self._batch_tokens if self._projector else 0, llama_cpp.llama_model_n_embd_inp(self._model)
        )
        self._grammars = ClientGrammars(self._vocab)
        self._pieces: dict[int, bytes] = {}
        self._ends: dict[int, bool] = {}
        self._rows: list[int] = []
        self.info = self._describe(path)
        self._warm_up()

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Tokenise; lone surrogates become question marks."""
        data = text.encode(errors="replace")
        capacity = len(data) + 8
        tokens = (llama_cpp.llama_token * capacity)()
        count = llama_cpp.llama_tokenize(self._vocab, data, len(data), tokens, capacity, False, special)
        if count < 0:
            capacity = -count
            tokens = (llama_cpp.llama_token * capacity)()
            count = llama_cpp.llama_tokenize(self._vocab, data, len(data), tokens, capacity, False, special)
        return tokens[: max(count, 0)]

    def piece(self, token: int) -> bytes:
        """Return a token's text."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._text(token, special=False)
            if not piece and (shown := self._text(token, special=True)) in _SHOWN_CONTROL:
                piece = shown
            self._pieces[token] = piece
        return piece

    def picture(self, image: Image) -> Picture:
        """Compute an image's rows beside the engine thread."""
        if self._projector is None:
            raise UnsupportedError("This expert has no projector.")
        return self._projector.picture(image)

    def compile_grammar(self, source: str, param: str = "grammar") -> ClientGrammar:
        """Compile a client's GBNF, or what was made of its schema."""
        return self._grammars.compile(source, param)

    def is_end(self, token: int) -> bool:
        """Whether the token is an end of generation."""
        end = self._ends.get(token)
        if end is None:
            end = self._ends[token] = bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))
        return end

    def sampler(self, sampling: Sampling) -> LlamaSampler:
        """Build a sampler chain."""
        return LlamaSampler(
            context=self._context,
            vocab=self._vocab,
            vocabulary=self.info.vocabulary,
            rows=self._rows,
            sampling=sampling,
        )

    def decode(self, runs: Sequence[Run]) -> None:
        """Compute a batch of at most `batch_tokens` tokens."""
        if self._projector is not None:
            runs = [self._decode_pictures(run, self._projector) for run in runs]
            if not any(run.tokens for run in runs):
                return
        self._rows[:] = self._batch.fill(runs)
        self._compute(self._batch.native)

    def _decode_pictures(self, run: Run, projector: LlamaProjector) -> Run:
        """Compute a run up to its last image's end; return the rest."""
        if min(run.tokens) >= 0:
            return run
        *first, last = segments(run)
        if last.tokens[0] < 0:
            first, last = [*first, last], Run(run.seq, run.position + len(run.tokens), [], outputs=0)
        for piece in first:
            if piece.tokens[0] >= 0:
                self._batch.fill([piece])
                self._compute(self._batch.native)
            else:
                self._compute(self._embedded.fill(piece, projector.rows(piece.tokens)))
        return last

    def _compute(self, batch: object) -> None:
        match llama_cpp.llama_decode(self._context, batch):
            case 0:
                return
            case 1:
                raise StepError("llama.cpp found no place in the KV cache for the batch.")
            case -1:
                raise StepError(f"llama.cpp refused the batch: {_reason()}")
            case code:
                raise EngineBrokenError(f"llama.cpp failed to compute (code {code}): {_reason()}")

    def keep(self, seq: int, tokens: int) -> int:
        """Cut a sequence, or empty it where the model can't be cut."""
        if tokens and llama_cpp.llama_memory_seq_rm(self._memory, seq, tokens, -1):
            return tokens
        llama_cpp.llama_memory_seq_rm(self._memory, seq, -1, -1)
        return 0

    def cut(self, seq: int, start: int, end: int) -> None:
        """Remove a range of positions."""
        llama_cpp.llama_memory_seq_rm(self._memory, seq, start, end)

    def copy(self, source: int, target: int, start: int, end: int) -> int:
        """Share cells; in a unified cache nothing is moved."""
        if self.divisible:
            llama_cpp.llama_memory_seq_cp(self._memory, source, target, start, end)
        else:
            llama_cpp.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        return end

    def state_bytes(self, seq: int) -> int:
        """Return the size of a sequence's state (llama_state_seq_get_size)."""
        return cast("int", llama_cpp.llama_state_seq_get_size(self._context, seq))

    def save(self, seq: int) -> memoryview:
        """Return a sequence's state (llama_state_seq_get_data)."""
        data = np.empty(self.state_bytes(seq), np.uint8)
        written = llama_cpp.llama_state_seq_get_data(self._context, _bytes_at(data), len(data), seq)
        return memoryview(data)[:written]

    def restore(self, seq: int, data: memoryview) -> bool:
        """Put a state back (llama_state_seq_set_data)."""
        self.keep(seq, 0)
        source = np.frombuffer(data, np.uint8)
        if llama_cpp.llama_state_seq_set_data(self._context, _bytes_at(source), len(source), seq) == len(source):
            return True
        self.keep(seq, 0)
        return False

    def set_threads(self, threads: int) -> None:
        """Compute with so many threads from the next step on."""
        self._threads = threads
        llama_cpp.llama_set_n_threads(self._context, threads, threads)

    def embed(self, texts: Sequence[Sequence[int]]) -> Steps:
        """Compute embeddings; a context of its own is made when it is first needed."""
        if self._embedder is None:
            self._embedder = LlamaEmbedder(self._model, self._settings, self._threads)
        return self._embedder.compute(texts)

    def rank(self, pairs: Sequence[Sequence[int]]) -> Steps:
        """Compute relevance; a context of its own is made when it is first needed."""
        if self._ranker is None:
            self._ranker = LlamaEmbedder(self._model, self._settings, self._threads, ranks=True)
        return self._ranker.compute(pairs)

    def close(self) -> None:
        """Free everything."""
        if self._open:
            self._open = False
            for vectors in (self._embedder, self._ranker, self._projector):
                if vectors is not None:
                    vectors.close()
            llama_cpp.llama_free(self._context)
            llama_cpp.llama_model_free(self._model)

    def _new_context(self, path: Path) -> int:
        settings = self._settings
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = settings.kv_cells
        # llama.cpp ends the process where a batch has no room for a token of each sequence.
        parameters.n_batch = parameters.n_ubatch = max(self._batch_tokens, settings.sequences + 1)
        parameters.n_seq_max = settings.sequences + 1
        parameters.n_threads = parameters.n_threads_batch = self._threads
        parameters.kv_unified = True
        # A sliding-window cache of full size can be cut anywhere, so prefixes can be reused.
        parameters.swa_full = True
        parameters.no_perf = True
        context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not context:
            llama_cpp.llama_model_free(self._model)
            raise ModelLoadError(f"{path}: no context of {settings.kv_cells} tokens could be made: {_reason()}")
        return cast("int", context)

    def _describe(self, path: Path) -> ModelInfo:
        vocab = self._vocab
        template = llama_cpp.llama_model_chat_template(self._model, None)
        description = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self._model, description, len(description))
        bos = llama_cpp.llama_vocab_bos(vocab)
        eos = llama_cpp.llama_vocab_eos(vocab)
        size = llama_cpp.llama_vocab_n_tokens(vocab)
        return ModelInfo(
            description=description.value.decode(errors="replace"),
            chat_template=template.decode(errors="replace") if template else None,
            bos=self._text(bos, special=True).decode(errors="replace") if bos >= 0 else "",
            eos=self._text(eos, special=True).decode(errors="replace") if eos >= 0 else "",
            adds_bos=bos >= 0 and bool(llama_cpp.llama_vocab_get_add_bos(vocab)),
            bos_token=bos,
            vocabulary=size,
            trained_context=llama_cpp.llama_model_n_ctx_train(self._model),
            state_key=f"{fingerprint(path)} llama-cpp-python {llama_cpp.__version__} f16 unified swa-full",
            sees=self._projector is not None,
            generates=bool(
                llama_cpp.llama_get_memory(self._context) and llama_cpp.llama_model_has_decoder(self._model)
            ),
            text_tokens=min(self._settings.context_tokens, MOST_TOKENS),
            **text_marks(self._model),
            special_texts=tuple(sorted(self._control_texts(size))),
        )

    def _control_texts(self, vocabulary: int) -> set[str]:
        texts = {
            self._text(token, special=True).decode(errors="replace")
            for token in range(vocabulary)
            if llama_cpp.llama_vocab_get_attr(self._vocab, token) & _CONTROL
        }
        return texts - {"", OPEN, CLOSE}

    def _text(self, token: int, *, special: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        if length < 0:
            buffer = ctypes.create_string_buffer(-length)
            length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, len(buffer), 0, special)
        return buffer.raw[: max(length, 0)]

    def _warm_up(self) -> None:
        """Compute one token, so that the first request does not pay for reading the weights."""
        if not self.info.generates:
            return
        self.decode([Run(0, 0, [max(self.info.bos_token, 0)], outputs=1)])
        self.keep(0, 0)


def _bytes_at(array: npt.NDArray[np.uint8]) -> object:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


_FIELDS: dict[str, Any] = {field[0]: field[1] for field in llama_cpp.llama_batch._fields_}


class _Batch:
    """A llama_batch whose arrays are numpy's, with one sequence id a token."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._tokens = np.zeros(capacity, np.int32)
        self._positions = np.zeros(capacity, np.int32)
        self._counts = np.ones(capacity, np.int32)
        self._sequences = np.zeros(capacity, np.int32)
        self._pointers = self._sequences.ctypes.data + 4 * np.arange(capacity, dtype=np.uintp)
        self._outputs = np.zeros(capacity, np.int8)
        self.native = batch = llama_cpp.llama_batch()
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self._outputs),
        ):
            setattr(batch, name, array.ctypes.data_as(_FIELDS[name]))

    def fill(self, runs: Sequence[Run]) -> list[int]:
        """Take the runs; return the index of each one's first output. Raises StepError if they are too long."""
        rows: list[int] = []
        start = 0
        for run in runs:
            end = start + len(run.tokens)
            if end > self.capacity:
                raise StepError(f"A batch of more than {self.capacity} tokens was planned.")
            self._tokens[start:end] = run.tokens
            self._positions[start:end] = range(run.position, run.position + len(run.tokens))
            self._sequences[start:end] = run.seq
            self._outputs[start:end] = 0
            self._outputs[end - run.outputs : end] = 1
            rows.append(end - run.outputs)
            start = end
        self.native.n_tokens = start
        return rows


def _load(path: Path, settings: EngineSettings) -> int:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelLoadError(f"{path}: {error.strerror or error}") from error
    if magic != _MAGIC:
        raise ModelLoadError(f"{path}: this is no GGUF file (it starts with {magic!r}).")
    load_backends()
    llama_cpp.llama_backend_init()
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = settings.worker_layers if settings.workers else settings.gpu_layers
    devices = _worker_array(settings)
    if devices is not None:
        parameters.devices = ctypes.addressof(devices)
    llama_log.take_errors()
    model = llama_cpp.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise ModelLoadError(f"{path}: llama.cpp can't load the model: {_reason()}")
    return cast("int", model)


def _worker_array(settings: EngineSettings) -> "ctypes.Array[ctypes.c_void_p] | None":
    """Return the workers' devices as llama.cpp wants them, ended by NULL; None without workers."""
    if settings.workers:
        handles = worker_devices(settings.workers)
        return (ctypes.c_void_p * (len(handles) + 1))(*handles, None)
    if settings.gpu_layers and not has_gpu():
        _log.warning(
            "gpu_layers is %d, but llama.cpp found no GPU it can use (or was built without support for one): "
            "everything is computed on the processor. docs/development.md says how to build with a GPU.",
            settings.gpu_layers,
        )
    return None


def _reason() -> str:
    """Return what llama.cpp logged as the cause."""
    return "; ".join(dict.fromkeys(llama_log.take_errors())) or "it gave no reason"
