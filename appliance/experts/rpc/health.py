"""What a worker says of itself, and an expert believes."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=1, le=65535)]
Bytes = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(max_length=256)]


class WorkerDevice(BaseModel):
    """A device that the worker lends."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Text
    description: Text
    free_bytes: Bytes
    total_bytes: Bytes


class WorkerHealth(BaseModel):
    """The answer of a worker's /health to who has the key."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: Literal["ok", "failed"]
    """`failed` when the RPC port no longer accepts."""
    rpc_port: Port
    llama_cpp: Text
    """Version of llama-cpp-python; both sides must have the same, or their protocols may differ."""
    clients: Annotated[int, Field(ge=0)]
    """Connections to the RPC port. The server serves one expert at a time; others wait without an answer."""
    memory_bytes: Bytes
    """Resident memory of the worker's process, weights and caches included."""
    devices: tuple[WorkerDevice, ...] = Field(max_length=64)
