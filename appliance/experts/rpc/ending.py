"""The end of an expert whose worker is lost: at once, with one line that its supervisor reports."""

import ctypes
import os
import sys

from llama_cpp import llama_cpp

EXIT_CODE = 1


def end_process(reason: str) -> None:
    """End this process at once, with a last line that its supervisor reports.

    The engine's thread can't be interrupted: it waits in llama.cpp for a worker that is no more.
    """
    sys.stderr.write(f"rouse: {reason}\n")
    sys.stderr.flush()
    os._exit(EXIT_CODE)


def _on_abort(message: bytes | None) -> None:
    text = (message or b"").decode(errors="replace")
    end_process(f"llama.cpp gave up, most likely because a worker was lost: {text.rpartition('/')[2]}")


# llama.cpp keeps the pointer for the life of the process.
_callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_on_abort)


def end_clearly_when_llama_cpp_aborts() -> None:
    """Let llama.cpp's assertions end the process with one line instead of a trace and a signal (ggml.h).

    For an expert with workers only: there llama.cpp aborts as its way to say that a connection broke.
    """
    set_callback = llama_cpp._lib.ggml_set_abort_callback  # noqa: SLF001  # not wrapped
    set_callback.restype = ctypes.c_void_p
    set_callback.argtypes = [type(_callback)]
    set_callback(_callback)
