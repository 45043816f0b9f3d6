"""llama.cpp's log, as Python logging at debug level."""

import ctypes
import logging
from collections import deque

import llama_cpp

_log = logging.getLogger("appliance.experts.llama_cpp")
_ERROR = 4  # GGML_LOG_LEVEL_ERROR
_last_errors: deque[str] = deque(maxlen=8)


def _receive(level: int, text: bytes, _user_data: object) -> None:
    line = text.decode(errors="replace").strip()
    if level == _ERROR and line:
        _last_errors.append(" ".join(line.split()))
    if line and _log.isEnabledFor(logging.DEBUG):
        _log.debug("%s", line)


# llama.cpp keeps the pointer for the life of the process.
_callback = llama_cpp.llama_log_callback(_receive)


def capture() -> None:
    """Send llama.cpp's log here instead of standard error."""
    llama_cpp.llama_log_set(_callback, ctypes.c_void_p(0))


def capture_projector() -> None:
    """Send mtmd's log here too; its library is loaded by those only who need it."""
    from llama_cpp import mtmd_cpp  # noqa: PLC0415

    mtmd_cpp.mtmd_log_set(_callback, ctypes.c_void_p(0))


def take_errors() -> list[str]:
    """Return the last errors that llama.cpp logged, and forget them."""
    errors = list(_last_errors)
    _last_errors.clear()
    return errors
