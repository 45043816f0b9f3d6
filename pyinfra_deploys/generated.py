"""Files that are made from templates, or from text."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from pyinfra.api.operation import OperationMeta

from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.file_operations import removed, written

_SHARED = Path(__file__).parent / "templates"
"""What templates of all parts may include."""
HEADER = "Made by Rouse's deploy; changes are overwritten."


def template(
    source: Path,
    dest: str,
    *,
    mode: str = "644",
    user: str = "root",
    group: str = "root",
    secret: bool = False,
    check: str | None = None,
    **data: Any,
) -> OperationMeta:
    """Write a file that is rendered from a Jinja template; a name that has no value is an error, and so is None.

    Args:
        source: the template.
        dest: the file, absolute.
        mode: octal permissions.
        user: owner.
        group: group.
        secret: whether its content must not be shown, not even as a difference.
        check: command that must find the new file good before it is put in place, with `{new}` for its path.
        data: what the template can use, besides `header`.

    Raises:
        DeployError: it can't be rendered.
    """
    content = render(source, **data)
    return text(content, dest, mode=mode, user=user, group=group, secret=secret, check=check)


def text(
    content: str,
    dest: str,
    *,
    mode: str = "644",
    user: str = "root",
    group: str = "root",
    secret: bool = False,
    check: str | None = None,
) -> OperationMeta:
    """Write a file with this content; the rest is as for `template`."""
    return written(
        name=f"Write {dest}", content=content, dest=dest, mode=mode, owner=user, group=group, secret=secret, check=check
    )


def binary(content: bytes, dest: str, *, mode: str = "644", user: str = "root", group: str = "root") -> OperationMeta:
    """Write a file of any bytes."""
    return written(
        name=f"Write {dest}", content=content, dest=dest, mode=mode, owner=user, group=group, secret=False, check=None
    )


def absent(path: str) -> OperationMeta:
    """Have no such file."""
    return removed(name=f"Remove {path}", path=path)


def render(source: Path, **data: Any) -> str:
    """Return what a template says.

    Raises:
        DeployError: it can't be rendered.
    """
    # These are configuration files, not HTML.
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader([source.parent, _SHARED]),
        undefined=StrictUndefined,
        finalize=_refuse_none,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        return environment.get_template(source.name).render(header=HEADER, **data)
    except (TemplateError, ValueError) as error:
        raise DeployError(f"{source.name} can't be rendered: {error}") from error


def _refuse_none(value: object) -> object:
    if value is None:
        raise ValueError("a value is None")
    return value
