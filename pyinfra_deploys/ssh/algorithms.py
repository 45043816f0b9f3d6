"""Which algorithms the SSH server offers: those that hold today, as far as the machine's version knows them."""

from collections.abc import Mapping, Sequence
from typing import override

from pyinfra.api import FactBase

CHOSEN: Mapping[str, tuple[str, ...]] = {
    "KexAlgorithms": (
        "mlkem768x25519-sha256",
        "sntrup761x25519-sha512",
        "sntrup761x25519-sha512@openssh.com",
        "curve25519-sha256",
        "curve25519-sha256@libssh.org",
    ),
    "Ciphers": ("chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr"),
    "MACs": ("hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "umac-128-etm@openssh.com"),
    "HostKeyAlgorithms": ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"),
    "PubkeyAcceptedAlgorithms": (
        "ssh-ed25519",
        "sk-ssh-ed25519@openssh.com",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "rsa-sha2-512",
        "rsa-sha2-256",
    ),
}
"""In order of preference. The first three key exchanges also hold against a quantum computer of tomorrow; every type of
key that `system.ssh_keys` takes is accepted."""


class SshAlgorithms(FactBase[Mapping[str, frozenset[str]]]):
    """What the machine's OpenSSH knows, by option of its configuration."""

    @override
    def command(self) -> str:
        return f'for name in {" ".join(CHOSEN)}; do ssh -Q $name 2>/dev/null | sed "s/^/$name /"; done'

    @override
    def process(self, output: list[str]) -> dict[str, frozenset[str]]:
        pairs = [line.split() for line in output]
        return {name: frozenset(pair[1] for pair in pairs if pair[0] == name) for name in CHOSEN}

    @override
    @staticmethod
    def default() -> Mapping[str, frozenset[str]]:
        return {}


def supported(choice: Sequence[str], known: frozenset[str] | None) -> tuple[str, ...]:
    """Return the choice without what the machine does not know; all of it where it does not say."""
    return tuple(name for name in choice if not known or name in known)
