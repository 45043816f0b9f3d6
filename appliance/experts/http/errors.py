"""Errors as HTTP responses in OpenAI's shape."""

from aiohttp import web

from appliance.experts.errors import (
    BusyError,
    ContextExceededError,
    EngineBrokenError,
    ExpertError,
    InvalidRequestError,
    ModelNotFoundError,
)
from appliance.experts.http.wire import Json, error_json

MESSAGES = {
    401: "Wrong or missing API key: expected the header 'Authorization: Bearer <key>'.",
    404: "There is nothing at this path.",
    405: "This path does not take this method.",
    413: "The request's body is too large.",
    500: "The expert failed. Its log says why.",
}


def status_of(error: ExpertError) -> int:
    """Return the HTTP status that fits an error."""
    match error:
        case ModelNotFoundError():
            return 404
        case InvalidRequestError():
            return 400
        case BusyError() | EngineBrokenError():
            return 503
        case _:
            return 500


def body_of(error: ExpertError) -> Json:
    """Return OpenAI's error body."""
    match error:
        case ContextExceededError():
            body = _invalid(error)
            body["error"] |= {"prompt_tokens": error.prompt_tokens, "context_tokens": error.limit}
            return body
        case InvalidRequestError():
            return _invalid(error)
        case BusyError():
            return error_json(str(error), kind="overloaded_error", code="overloaded")
        case _:
            return error_json(str(error), kind="server_error", code="engine_failed")


def response_to(error: ExpertError) -> web.Response:
    """Return the response."""
    response = web.json_response(body_of(error), status=status_of(error))
    if isinstance(error, BusyError):
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def plain_response(status: int, message: str | None = None) -> web.Response:
    """Return the response to what never became a request of ours."""
    kind = {401: "authentication_error", 500: "server_error"}.get(status, "invalid_request_error")
    text = message or MESSAGES.get(status, "The request could not be answered.")
    code = "invalid_api_key" if status == 401 else None
    return web.json_response(error_json(text, kind=kind, code=code), status=status)


def _invalid(error: InvalidRequestError) -> Json:
    return error_json(str(error), kind="invalid_request_error", param=error.param, code=error.code)
