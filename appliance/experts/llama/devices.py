"""What llama.cpp computes on: the CPU variant for this processor, GPUs, and other machines' workers.

Our build has ggml's backends as libraries that are loaded at run time (GGML_BACKEND_DL), among them one for
each generation of processors; see docs/decisions/llama-cpp-build.md. Functions of ggml-backend.h, reached
through libllama's handle: a second handle on libggml could be a second copy with a registry of its own.
"""

import _ctypes
import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from llama_cpp import llama_cpp

from appliance.experts.errors import ModelLoadError

type Kind = Literal["cpu", "gpu", "integrated gpu", "accelerator", "other"]

_KINDS: tuple[Kind, ...] = ("cpu", "gpu", "integrated gpu", "accelerator")
"""By ggml_backend_dev_type."""
_RPC = "RPC"
_CPU = "CPU"
_VARIANT = "libggml-cpu-"
_LEFT_OUT = frozenset({"sapphirerapids"})
"""Variants that are never chosen: AMX ends the process; docs/decisions/llama-cpp-build.md has the facts."""
_pointer = ctypes.c_void_p


@dataclass(frozen=True, slots=True)
class Device:
    """A device of ggml's registry."""

    name: str
    description: str
    backend: str
    """Name of what drives it, such as CPU, CUDA, Vulkan."""
    kind: Kind
    free_bytes: int
    total_bytes: int


class _Feature(ctypes.Structure):
    """`struct ggml_backend_feature`."""

    _fields_ = (("name", ctypes.c_char_p), ("value", ctypes.c_char_p))


def library_folder() -> Path:
    """Return the folder of llama.cpp's libraries."""
    return Path(llama_cpp._base_path)  # noqa: SLF001  # nothing public says it


def load_backends() -> None:
    """Load ggml's backends, once: from the folder of llama.cpp's libraries and nowhere else.

    Left to itself, llama.cpp looks beside the interpreter and in the working directory. With a build for one
    processor only, the backends are there from the start and nothing is loaded.

    Raises:
        ModelLoadError: no CPU backend runs on this processor.
    """
    if not _function("ggml_backend_reg_count", ctypes.c_size_t)():
        load = _function("ggml_backend_load", _pointer, ctypes.c_char_p)
        for file in (*_other_backends(), *_best_variant()):  # in ggml's order: a model goes to GPUs before the CPU
            load(os.fsencode(file))
    if not _registry(_CPU):
        raise ModelLoadError(f"{library_folder()}: no CPU backend in there runs on this processor.")


def cpu_variant() -> str | None:
    """Return the name of the CPU variant in use, such as `haswell`; None in a build for one processor."""
    library = cpu_library()
    return None if library is None else library.name.removeprefix(_VARIANT).partition(".")[0]


def cpu_library() -> Path | None:
    """Return the file of the CPU variant in use; None in a build for one processor.

    What uses llama-cpp-python without Rouse, its server for one, needs it in `GGML_BACKEND_PATH`: llama.cpp
    doesn't look for its backends where they are installed.
    """
    load_backends()
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        path = Path(line.partition("/")[1] + line.partition("/")[2])
        if path.name.startswith(_VARIANT):
            return path
    return None


def cpu_variants() -> tuple[str, ...]:
    """Return the names of the CPU variants that this build has."""
    files = library_folder().glob(f"{_VARIANT}*.so")
    return tuple(sorted(file.name.removeprefix(_VARIANT).removesuffix(".so") for file in files))


def _other_backends() -> list[Path]:
    files = sorted(library_folder().glob("libggml-*.so"))
    return [file for file in files if not file.name.startswith(_VARIANT) and file.name != "libggml-base.so"]


def _best_variant() -> list[Path]:
    """Return the file of the CPU variant that says it is the best for this processor, if any of them runs on it."""
    names = (name for name in cpu_variants() if name not in _LEFT_OUT)
    scores = {file: _score(file) for file in (library_folder() / f"{_VARIANT}{name}.so" for name in names)}
    best = max(scores, key=scores.__getitem__, default=None)
    return [best] if best is not None and scores[best] > 0 else []


def _score(variant: Path) -> int:
    """Ask a variant how well it fits this processor; 0 is not at all (`ggml_backend_score` of ggml-backend-impl.h)."""
    library = ctypes.CDLL(str(variant))
    try:
        return int(library.ggml_backend_score())
    finally:
        _ctypes.dlclose(library._handle)  # noqa: SLF001  # ctypes has nothing public that closes a library


def cpu_features() -> tuple[str, ...]:
    """Return the instruction sets that the loaded CPU backend was compiled to use, as ggml names them."""
    load_backends()
    list_features = cpu_function("ggml_backend_get_features", ctypes.POINTER(_Feature), _pointer)
    features = list_features(_registry(_CPU))
    found: list[tuple[str, str]] = []
    while (feature := features[len(found)]).name:
        found.append((feature.name.decode(), feature.value.decode()))
    return tuple(name for name, value in found if value != "0")


def cpu_function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """Return a function of the CPU backend, which in our build is in no library that one could link to."""
    load_backends()
    return registry_function(_CPU, name, result, *arguments)


def registry_function(backend: str, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """Return a function of a backend by its name. Raises ModelLoadError where there is none."""
    registry = _registry(backend)
    find = _function("ggml_backend_reg_get_proc_address", _pointer, _pointer, ctypes.c_char_p)
    address = find(registry, name.encode()) if registry else None
    if not address:
        raise ModelLoadError(f"This build of llama.cpp has no {name} in its backend {backend}.")
    return cast("Callable[..., Any]", ctypes.CFUNCTYPE(result, *arguments)(address))


def devices() -> tuple[Device, ...]:
    """Return the devices of this machine; workers are none of them."""
    return tuple(device(handle) for handle in _all_devices())


def has_gpu() -> bool:
    """Whether this build found a GPU.

    `llama_supports_gpu_offload` is no answer: it is true as soon as the build can use other machines.
    """
    return bool(gpu_devices())


def gpu_devices() -> tuple[int, ...]:
    """Return the handles (ggml_backend_dev_t) of this machine's GPUs."""
    return tuple(handle for handle in _all_devices() if device(handle).kind in ("gpu", "integrated gpu"))


def cpu_devices() -> tuple[int, ...]:
    """Return the handles (ggml_backend_dev_t) of the CPU backend's devices."""
    load_backends()
    return _devices_of(_registry(_CPU) or 0)


def worker_devices(endpoints: Sequence[str]) -> tuple[int, ...]:
    """Connect to ggml RPC servers (`host:port`) and return the handles of their devices.

    Ends the process if one can't be reached: make sure of that before.

    Raises:
        ModelLoadError: this build has no RPC, or a server offers no device.
    """
    load_backends()
    add = registry_function(_RPC, "ggml_backend_rpc_add_server", _pointer, ctypes.c_char_p)
    found: list[int] = []
    for endpoint in endpoints:
        registry = add(endpoint.encode())
        if not registry:
            raise ModelLoadError(f"The worker at {endpoint} offers no device.")
        found += _devices_of(registry)
    return tuple(found)


def _devices_of(registry: int) -> tuple[int, ...]:
    count = _function("ggml_backend_reg_dev_count", ctypes.c_size_t, _pointer)(registry)
    get = _function("ggml_backend_reg_dev_get", _pointer, _pointer, ctypes.c_size_t)
    return tuple(get(registry, index) for index in range(count))


def _all_devices() -> tuple[int, ...]:
    load_backends()
    count = _function("ggml_backend_dev_count", ctypes.c_size_t)()
    get = _function("ggml_backend_dev_get", _pointer, ctypes.c_size_t)
    return tuple(get(index) for index in range(count))


def device(handle: int) -> Device:
    """Return what is known of a device."""
    kind = _function("ggml_backend_dev_type", ctypes.c_int, _pointer)(handle)
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _function("ggml_backend_dev_memory", None, _pointer, _pointer, _pointer)(
        handle, ctypes.byref(free), ctypes.byref(total)
    )
    registry = _function("ggml_backend_dev_backend_reg", _pointer, _pointer)(handle)
    return Device(
        name=_text("ggml_backend_dev_name", handle),
        description=_text("ggml_backend_dev_description", handle),
        backend=_text("ggml_backend_reg_name", registry),
        kind=_KINDS[kind] if 0 <= kind < len(_KINDS) else "other",
        free_bytes=free.value,
        total_bytes=total.value,
    )


def _text(function: str, handle: int) -> str:
    text: bytes = _function(function, ctypes.c_char_p, _pointer)(handle)
    return text.decode(errors="replace")


def _registry(backend: str) -> int | None:
    found: int | None = _function("ggml_backend_reg_by_name", _pointer, ctypes.c_char_p)(backend.encode())
    return found


@cache
def _function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(llama_cpp._lib, name)  # noqa: SLF001  # see the module's docstring
    function.restype = result
    function.argtypes = arguments
    return cast("Callable[..., Any]", function)
