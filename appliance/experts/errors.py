"""Errors of an expert.

ExpertError
├── InvalidRequestError        the request can't be served as it is: change it
│   ├── ModelNotFoundError     another model was asked for: ask the gateway, or for this one
│   ├── ContextExceededError   the prompt is longer than a request may be: shorten it
│   └── UnsupportedError       this model or this build can't do it: ask another expert
├── BusyError                  the waiting queue is full or the expert is stopping: come back later
├── LoadingError               the model is still being loaded: come back in a moment
├── StepError                  a decode step failed: the running requests are lost, the next ones are served
├── EngineBrokenError          the context can't be used any more: restart the process
└── ModelLoadError             the file can't be served on this machine: fix the file or the settings
"""


class ExpertError(Exception):
    """Root of the package's errors."""


class InvalidRequestError(ExpertError):
    """The request can't be served as it is."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        """Say what was expected, of which field (a dotted path), and OpenAI's code for it if there is one."""
        super().__init__(message)
        self.param = param
        self.code = code


class ModelNotFoundError(InvalidRequestError):
    """This expert serves another model."""

    def __init__(self, asked: str, name: str) -> None:
        """Take the name that was asked for and the one there is."""
        super().__init__(
            f"There is no model {asked!r} here; this expert serves {name!r} (or say 'default').",
            param="model",
            code="model_not_found",
        )


class ContextExceededError(InvalidRequestError):
    """The prompt is longer than a request may be."""

    def __init__(self, *, prompt_tokens: int, limit: int, param: str = "messages") -> None:
        """Give both numbers, in tokens."""
        super().__init__(
            f"A request may have {limit} tokens here, and the prompt alone has {prompt_tokens}. "
            f"Shorten it to at most {limit - 1}.",
            param=param,
            code="context_length_exceeded",
        )
        self.prompt_tokens = prompt_tokens
        self.limit = limit


class UnsupportedError(InvalidRequestError):
    """This model or this build can't do what was asked."""


class BusyError(ExpertError):
    """No room for the request now."""

    def __init__(self, message: str, *, retry_after: int) -> None:
        """Give the number of seconds after which a new attempt makes sense."""
        super().__init__(message)
        self.retry_after = retry_after


class LoadingError(BusyError):
    """The model is still being loaded."""

    def __init__(self) -> None:
        super().__init__("The model is still being loaded.", retry_after=2)


class StepError(ExpertError):
    """A decode step failed; the engine goes on without the requests that were part of it."""


class EngineBrokenError(ExpertError):
    """The llama.cpp context can't be used any more."""


class ModelLoadError(ExpertError):
    """The model file can't be served."""
