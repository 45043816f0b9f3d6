"""Commands that are imported when they are asked for: a service shall not load what it does not use."""

from collections import UserDict
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


class LazyGroup(TyperGroup):
    """A group, some of whose commands are in modules that are not imported yet; each module has an `app`.

    Attributes:
        prefix: what the names of the modules begin with; the command's name follows, with _ for -.
        groups: names of groups, each of which is its module's `app`.
        members: names of commands, each of which is a command of its module's `app`.
    """

    prefix: str
    groups: frozenset[str] = frozenset()
    members: frozenset[str] = frozenset()

    def __init__(self, **attributes: Any) -> None:
        """Take what typer gives, and add the names."""
        super().__init__(**attributes)
        self.commands = _Commands(self.commands, self)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands, in alphabetical order."""
        del ctx
        return sorted(self.commands)


class _Commands(UserDict[str, Any]):
    """Commands by name; a value of None is one that is not imported yet."""

    def __init__(self, present: Any, group: LazyGroup) -> None:
        super().__init__({**dict.fromkeys(group.groups | group.members), **present})
        self._group = group

    def __getitem__(self, name: str) -> Any:
        if self.data[name] is None:
            module = import_module(self._group.prefix + name.replace("-", "_"))
            found = typer.main.get_group(module.app)
            found.name = name
            self.data[name] = found if name in self._group.groups else found.commands[name]
        return self.data[name]
