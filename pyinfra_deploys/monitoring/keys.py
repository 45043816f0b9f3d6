"""The keys that Prometheus shows: each node's is made there, and copied to the hub, which asks it with that key."""

import re
from collections.abc import Generator
from typing import override

from pyinfra import host, inventory
from pyinfra.api import FactBase, QuoteString, StringCommand, operation
from pyinfra.facts.files import File

from pyinfra_deploys.errors import DeployError

OWNER = "rouse-node"
_MAKE = """
set -eu
umask 077
folder=$(dirname -- "$1")
mkdir -p -m 700 -- "$folder"
new=$(mktemp -- "$1.XXXXXXXX")
head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\\n' > "$new"
echo >> "$new"
if id -- "$2" > /dev/null 2>&1; then
  chown -- "$2": "$new"
  [ "$(stat -c %U -- "$folder")" != root ] || chown -- "$2": "$folder"
fi
sync -- "$new"
mv -n -T -- "$new" "$1"
rm -f -- "$new"
"""
_FORM = re.compile(r"[A-Za-z0-9_-]{20,200}")


class Key(FactBase[str | None]):
    """The first line of a file, or None where there is none. It is a secret: nothing prints it."""

    @override
    def command(self, path: str) -> StringCommand:
        return StringCommand("if [ -s", QuoteString(path), "]; then head -n 1", QuoteString(path), "; fi")

    @override
    def process(self, output: list[str]) -> str | None:
        text = output[0].strip() if output else ""
        if text and _FORM.fullmatch(text) is None:
            raise DeployError("what should be a key for metrics is none: remove it, and deploy again")
        return text or None


@operation()
def key_made(path: str) -> Generator[StringCommand]:
    """Have a key, made there, for the node daemon alone."""
    if not host.get_fact(File, path=path):
        yield StringCommand("sh", "-c", QuoteString(_MAKE), "key", QuoteString(path), OWNER)


def key_of(name: str, path: str) -> str | None:
    """Return a machine's key, or None when this run does not reach it."""
    for other in inventory:
        if other.connected and other.data.machine.name == name:
            found: str | None = other.get_fact(Key, path=path)
            return found
    return None
