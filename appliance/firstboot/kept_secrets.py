"""Secrets that were moved from the file on the FAT partition to the machine.

Whoever holds the stick can read the FAT partition. `forget` puts a placeholder where each secret stood; reading the
file puts the secrets back.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.firstboot.errors import FirstBootError
from appliance.settings.keys import Leaf, find, keys_of
from appliance.settings.model import Settings
from appliance.settings.source import KeyPath, dotted
from appliance.settings.toml_lines import lines_of, values_of

PLACEHOLDER = "kept-on-this-machine"


class MissingSecretError(FirstBootError):
    """The file says that the machine keeps a secret, and it does not."""

    def __init__(self, key: str, line: int) -> None:
        """Say which, and on what line."""
        super().__init__(f'is "{PLACEHOLDER}", but this machine keeps no such secret: write it anew')
        self.key = key
        self.line = line


@dataclass(frozen=True, slots=True)
class _Secret:
    key: str
    value: str
    place: slice
    line: int


def with_secrets(content: bytes, kept: Path | None) -> bytes:
    """Return the file with its secrets in their places; what is no TOML stays as it is.

    Raises:
        MissingSecretError: one of them is not kept here.
    """
    known = read_kept(kept) if kept is not None else {}
    secrets = {}
    for secret in _secrets(content):
        if secret.value == PLACEHOLDER:
            if secret.key not in known:
                raise MissingSecretError(secret.key, secret.line)
            secrets[secret.key] = known[secret.key]
    return _replaced(content, secrets)


def split(content: bytes) -> tuple[bytes, Mapping[str, str]]:
    """Return the file with placeholders for its secrets, and those that it held, by key."""
    held = {secret.key: secret.value for secret in _secrets(content) if secret.value != PLACEHOLDER}
    return _replaced(content, dict.fromkeys(held, PLACEHOLDER)), held


def read_kept(path: Path) -> dict[str, str]:
    """Return the secrets that the machine keeps, by key."""
    try:
        kept = dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
    return {str(key): str(value) for key, value in kept.items()}


def _replaced(content: bytes, values: Mapping[str, str]) -> bytes:
    if not values:
        return content
    text = _text(content).encode()
    for secret in sorted(_secrets(content), key=lambda secret: secret.place.start, reverse=True):
        if secret.key in values:
            text = text[: secret.place.start] + _quoted(values[secret.key]).encode() + text[secret.place.stop :]
    return text


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _text(content: bytes) -> str:
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def _secrets(content: bytes) -> Iterator[_Secret]:
    try:
        text = _text(content)
        tree = tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    root, lines = keys_of(Settings), lines_of(text)
    for path, place in values_of(text).items():
        leaf = find(root, path)
        value = _at(tree, path)
        if isinstance(leaf, Leaf) and leaf.secret and isinstance(value, str):
            yield _Secret(dotted(path), value, place, lines[path])


def _at(tree: Any, path: KeyPath) -> Any:
    for part in path:
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree
