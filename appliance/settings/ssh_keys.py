"""Public SSH keys as people paste them: one line of type, base64 and comment (RFC 4253, section 6.6)."""

import base64
import binascii
import re

_BODY_BYTES = {
    "ssh-ed25519": (32,),
    "ecdsa-sha2-nistp256": (65,),
    "ecdsa-sha2-nistp384": (97,),
    "ecdsa-sha2-nistp521": (133,),
    "sk-ssh-ed25519@openssh.com": (32,),
    "sk-ecdsa-sha2-nistp256@openssh.com": (65,),
}
"""Bytes of the public point by type; ssh-rsa is checked by the length of its modulus."""
_SHORTEST_RSA_BYTES = 2048 // 8
_TYPES = (*_BODY_BYTES, "ssh-rsa")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_ssh_key(text: str, number: int) -> str:
    """Return the key in one line, without white space around it.

    Args:
        text: what was pasted.
        number: its place in the list, from 1, for the message.

    Raises:
        ValueError: it is no public key; the message never repeats what was pasted.
    """
    if "PRIVATE KEY" in text or text.lstrip().startswith("PuTTY-User-Key-File"):
        raise ValueError(
            f"key {number} is a PRIVATE key. It must never leave your computer: take the file that ends in .pub, and "
            "make a new pair, because this one has been written where others can read it"
        )
    line = text.strip()
    if _CONTROL.search(line):
        raise ValueError(f"key {number} is more than one line; write each key as one string")
    kind, _, rest = line.partition(" ")
    if kind not in _TYPES:
        raise ValueError(f"key {number} does not begin with its type, one of {', '.join(_TYPES)}, and a space")
    encoded = rest.strip().partition(" ")[0]
    try:
        blob = base64.b64decode(encoded, validate=True)
        named, *fields = _fields(blob)
    except (binascii.Error, ValueError):
        raise ValueError(
            f"key {number} is cut off or damaged: copy the whole line of the file that ends in .pub"
        ) from None
    if named != kind.encode():
        raise ValueError(f"key {number} says that it is {kind}, but holds a key of another type")
    _check_size(kind, fields, number)
    return line


def _fields(blob: bytes) -> list[bytes]:
    """Split a key into its length-prefixed strings (RFC 4251, section 5)."""
    fields = []
    while blob:
        length = int.from_bytes(blob[:4])
        if len(blob) < 4 + length:
            raise ValueError("cut off")
        fields.append(blob[4 : 4 + length])
        blob = blob[4 + length :]
    if not fields:
        raise ValueError("empty")
    return fields


def _check_size(kind: str, fields: list[bytes], number: int) -> None:
    damaged = f"key {number} is cut off or damaged: copy the whole line of the file that ends in .pub"
    if kind == "ssh-rsa":
        if len(fields) != 2:
            raise ValueError(damaged)
        if len(fields[1].lstrip(b"\0")) < _SHORTEST_RSA_BYTES:
            raise ValueError(f"key {number} is an RSA key of less than 2048 bits; make one with ssh-keygen -t ed25519")
        return
    # A NIST curve's name stands before its point, and a security key's application after it.
    point = fields[1 if "ecdsa" in kind else 0 :][:1]
    expected = 1 + ("ecdsa" in kind) + kind.startswith("sk-")
    if len(fields) != expected or len(point[0]) not in _BODY_BYTES[kind]:
        raise ValueError(damaged)
