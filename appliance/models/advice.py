"""What fits a node, and how fast it would be.

Decoding: each token reads the weights that it uses and the keys and values of the context so far, so tokens a
second are memory bandwidth divided by these bytes. Prefill: each token multiplies every weight that it uses once,
two operations each, so tokens a second are operations a second divided by twice the parameters. (Pope et al. 2022,
"Efficiently Scaling Transformer Inference", section 2.) Both leave out what else a token costs; docs/models.md has
how far measured speeds are from them.
"""

from dataclasses import dataclass
from typing import Literal

from appliance.models.catalogue import Model
from appliance.models.machine import MachineSpeed

PROCESS_BYTES = 250 << 20
"""An expert's own memory beside weights and context: Python, llama.cpp, compute buffers. An allowance,
not a measurement: larger models need more for their buffers."""
_SHORT_CONTEXT = 100
"""Tokens of context at which the decoding speed is stated; a longer one makes small models much slower."""

type Fit = Literal["fits", "tight", "too-large", "unknown"]


@dataclass(frozen=True, slots=True)
class Memory:
    """This machine's memory, in bytes."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Advice:
    """What to expect of one model."""

    model: Model
    fit: Fit
    need: int | None
    """Bytes; None where the size is not known. Without the context's share where the architecture is not known."""
    complete: bool
    """Whether `need` has the context's share."""
    decode: float | None
    """Tokens a second, one request, short context."""
    prefill: float


def memory_need(model: Model, context: int, slots: int) -> tuple[int | None, bool]:
    """Return the bytes that an expert of this model takes, and whether the context's share is in it.

    Every slot can hold `context` tokens, never more than the model was trained for.
    """
    sizes = [file.estimated_size for file in model.files]
    if None in sizes:
        return None, False
    weights = sum(size for size in sizes if size is not None)
    if model.architecture is None:
        return weights + PROCESS_BYTES, False
    return weights + PROCESS_BYTES + kv_bytes(model, context, slots), True


def kv_bytes(model: Model, context: int, slots: int) -> int:
    """Return the bytes of the keys and values of all slots; 0 where the architecture is not known."""
    if model.architecture is None:
        return 0
    return model.architecture.kv_bytes_per_token * min(context, model.context) * slots


def advise(model: Model, *, memory: Memory, speed: MachineSpeed, context: int, slots: int) -> Advice:
    """Judge one model for a machine."""
    need, complete = memory_need(model, context, slots)
    used = (model.active_parameters or model.parameters) / model.parameters
    size = model.weights.estimated_size
    decode = None
    if size is not None:
        decode = speed.read_bytes_per_second / (size * used + kv_bytes(model, _SHORT_CONTEXT, 1))
    prefill = speed.multiply_flops / (2 * model.parameters * used)
    return Advice(model, _fit(need, memory), need, complete, decode, prefill)


def _fit(need: int | None, memory: Memory) -> Fit:
    """Judge by what is free now, and by what would be free if nothing else ran."""
    if need is None:
        return "unknown"
    if need <= memory.available:
        return "fits"
    return "tight" if need <= memory.total * 9 // 10 else "too-large"
