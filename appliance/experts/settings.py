"""What an engine is started with."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

MOST_SEQUENCES = 256
"""LLAMA_MAX_SEQ."""


class EngineSettings(BaseModel):
    """Settings of one expert's engine; immutable, validated.

    Memory grows with `kv_tokens`: each costs 2 x layers x KV heads x head size x 2 bytes (SmolLM2-135M: 23
    kB, a typical 1 B model: 32 to 64 kB).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    context_tokens: int = Field(default=4096, ge=16, le=1 << 20)
    """Most tokens of one request, prompt and answer together; never more than the model was trained for."""

    slots: int = Field(default=8, ge=1, le=128)
    """Requests that run at the same time. 8: more gives little on few cores, and each costs KV cells."""

    kv_tokens: int | None = Field(default=None, ge=16)
    """Cells of the KV cache shared by all slots, in tokens; None is `context_tokens` x `slots`, so that every
    slot can be full. Fewer save memory, and requests then wait until their worst case fits."""

    threads: int | None = Field(default=None, ge=1, le=1024)
    """Compute threads; None is what the self-benchmark found, else the number of usable physical cores: a second
    thread on a core mostly gets in the way of the first, as both wait for memory."""

    batch_tokens: int = Field(default=256, ge=1, le=8192)
    """Most tokens of one step. 256: a step of nothing but prefill then stays around a second on slow
    machines, which bounds how long a cancelled request or a new one waits."""

    prefill_chunk: int = Field(default=64, ge=1, le=4096)
    """Most prompt tokens added to a step while other requests are producing tokens."""

    stall_factor: float = Field(default=2.5, ge=1.1, le=100.0)
    """How many times longer a step may take because a prompt is computed in it, while other requests are producing
    tokens: bounds the gap in their streams. Fewer prompt tokens are added to a step than `prefill_chunk` where they
    would take longer than that."""

    queue_limit: int = Field(default=32, ge=0, le=10_000)
    """Requests that may wait for a slot; beyond that the answer is 503."""

    gpu_layers: int = Field(default=0, ge=-1)
    """Layers held by a GPU when the build has one; -1 is all of them."""

    draft_tokens: int = Field(default=4, ge=0, le=64)
    """Most tokens that are guessed from the prompt and computed in one step with the next one, when a request is
    alone and such guesses have come true often enough to save time; 0 is never."""

    idle_sequences: int = Field(default=16, ge=1, le=128)
    """Prefixes that may stay in the KV cache while no request uses them."""

    idle_steps: int = Field(default=16, ge=1)
    """Steps after which they are moved to memory, if it has room. Attention passes over them in each, which costs a
    small model 12 % per thousand tokens, while to move them there and back takes as long as a step or two."""

    parked_bytes: int = Field(default=256 << 20, ge=0)
    """Memory for prefixes that are not in the KV cache."""

    prefix_folder: Path | None = None
    """Folder where frequent prefixes outlive the process; None is nowhere. It must be this expert's own."""

    prefix_bytes: int = Field(default=1 << 30, ge=0)
    """Most bytes in that folder."""

    workers: tuple[str, ...] = ()
    """Endpoints (`address:port`) of ggml RPC servers that hold layers; they must answer before the model is
    loaded, because llama.cpp ends the process if one does not."""

    worker_layers: int = Field(default=-1, ge=-1)
    """Layers held by the workers, divided by their free memory; -1 is all of them. Without workers: nothing."""

    projector: Path | None = None
    """GGUF file of the model's projector; with it, chats may contain images."""

    embeddings: bool = False
    """Serve /v1/embeddings from a second context (mean pooling unless the model says otherwise)."""

    truncation: Literal["disabled", "auto"] = "disabled"
    """What becomes of a history, or of a text to embed, that is too long, where the request does not say:
    `disabled` refuses it, `auto` leaves messages out of the middle of the history, or cuts the text's end."""

    max_body_bytes: int = Field(default=4 << 20, ge=1024)
    """Largest request body; beyond that the answer is 413."""

    drain_seconds: float = Field(default=10.0, ge=0.0, le=600.0)
    """How long a stopping expert lets running requests finish before it fails them."""

    metrics_public: bool = False
    """Serve /metrics without the API key."""

    @property
    def sequences(self) -> int:
        """Sequences of the context, without the one that moves cells. llama.cpp has at most 256."""
        return min(self.slots + self.idle_sequences, MOST_SEQUENCES - 1)

    @property
    def kv_cells(self) -> int:
        """Size of the KV cache in tokens."""
        return self.kv_tokens or self.context_tokens * self.slots

    def limited_to(self, trained_context: int) -> Self:
        """Return the settings for a model that was trained for so many tokens; 0 where it does not say."""
        return self.model_copy(update={"context_tokens": min(self.context_tokens, trained_context or 1 << 20)})
