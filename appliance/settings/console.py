"""The machine's own screen."""

import re

from pydantic import field_validator

from appliance.settings.section import Section

_TERMINAL = re.compile(r"tty[A-Za-z]{0,8}[0-9]{1,3}|hvc[0-9]{1,2}")


class ConsoleSettings(Section):
    """The machine's own screen; see docs/first-boot.md."""

    terminals: tuple[str, ...] = ("tty1", "ttyS0")
    """Terminals that show how the machine is doing, in place of a log-in prompt: its first screen, and the first serial
    line, where it has one. Log in over SSH, or on the second screen (Ctrl-Alt-F2)."""

    @field_validator("terminals")
    @classmethod
    def _check_terminals(cls, terminals: tuple[str, ...]) -> tuple[str, ...]:
        for terminal in terminals:
            if _TERMINAL.fullmatch(terminal) is None:
                raise ValueError(f"{terminal!r}: expected the name of a terminal such as tty1 or ttyS0")
        return terminals
