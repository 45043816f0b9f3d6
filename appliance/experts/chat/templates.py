"""The model's chat template: from messages to the text of a prompt.

Templates are Jinja as Hugging Face's `apply_chat_template` runs it
(https://huggingface.co/docs/transformers/chat_templating), in a sandbox.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance.experts.chat import reasoning
from appliance.experts.chat.formats import format_of
from appliance.experts.errors import InvalidRequestError, ModelLoadError

CHATML = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For models that bring no template."""

type Json = dict[str, Any]


class ChatTemplate:
    """A compiled chat template."""

    def __init__(self, source: str | None, *, bos: str, eos: str) -> None:
        """Compile. Raises ModelLoadError."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        source = source or CHATML
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelLoadError(f"The model's chat template can't be compiled: {error}") from error
        self._bos, self._eos = bos, eos
        self.form = format_of(source)
        """The format in which the template itself presents tools and calls, if it does."""
        self.writes_calls = "tool_calls" in source
        """Whether it writes the calls that messages carry."""
        self.thinks = reasoning.OPEN in source
        """Whether the model may think before it answers."""

    def render(
        self,
        messages: Sequence[Json],
        *,
        tools: Sequence[Json] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """Return the prompt, ready for the assistant's turn. Raises InvalidRequestError."""
        try:
            return self._template.render(
                {
                    **(variables or {}),
                    "messages": messages,
                    "tools": tools or None,
                    "add_generation_prompt": True,
                    "bos_token": self._bos,
                    "eos_token": self._eos,
                }
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, RecursionError) as error:
            raise InvalidRequestError(
                f"The model's chat template does not take these messages: {error}", param="messages"
            ) from error


def _to_json(value: object, indent: int | None = None, **_: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return dt.datetime.now().astimezone().strftime(form)
