"""Errors of the gateway, each with the HTTP status and the OpenAI error code it becomes.

GatewayError
├── NoExpertError         nothing can answer at this moment: 503, try again later
│   └── StillAsleepError  those that could are on machines that do not wake: 503, look after them
├── BusyError             every candidate has too much to do: 503, try again later
├── UnknownModelError     the model's name is not known: 404, choose another
├── InvalidRequestError   the request can't be understood: 400, mend it
├── UnauthorizedError     the key is missing or wrong: 401
├── ExpertFailedError     every candidate failed before its first token: 502
├── ExpertDiedError       the expert stopped after its first token: an error event in the stream
└── AttemptError          one candidate did not answer: the next is asked, the client never sees it
    ├── AsleepError       its machine sleeps and was not woken
    ├── SilentError       there was no answer at all
    │   └── GoneError     nothing listens at its address: it has ended
    ├── OverloadedError   it has too much to do
    └── BadAnswerError    it answered, but not what was asked for
"""

from typing import Any, ClassVar


class GatewayError(Exception):
    """Root of the package's errors."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        return {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.code}}


class NoExpertError(GatewayError):
    """No expert that could answer is available."""

    status = 503
    code = "no_expert"


class StillAsleepError(NoExpertError):
    """Every expert that could answer is on a machine that does not wake."""


class BusyError(GatewayError):
    """Every candidate has too much to do."""

    status = 503
    code = "overloaded"


class UnknownModelError(GatewayError):
    """No expert of that name has ever been announced."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class InvalidRequestError(GatewayError):
    """The request can't be understood."""

    status = 400
    kind = "invalid_request_error"
    code = "invalid_request"


class UnauthorizedError(GatewayError):
    """The key is missing or wrong."""

    status = 401
    kind = "invalid_request_error"
    code = "invalid_api_key"


class ExpertFailedError(GatewayError):
    """Every candidate failed before its first token."""

    status = 502
    code = "expert_failed"


class ExpertDiedError(GatewayError):
    """The expert stopped in the middle of its answer."""

    status = 502
    code = "expert_failed"


class AttemptError(GatewayError):
    """One candidate did not answer."""


class AsleepError(AttemptError):
    """Its machine sleeps, and was not woken in time."""


class SilentError(AttemptError):
    """There was no answer: no connection, or it broke, or nothing came in time."""


class GoneError(SilentError):
    """Nothing listens at its address: the process has ended, and its node may not have said so yet."""


class OverloadedError(AttemptError):
    """The expert has too much to do at this moment, which says nothing against its health."""


class BadAnswerError(AttemptError):
    """What came is no answer to the request."""
