"""Passwords as mosquitto keeps them: `$7$iterations$salt$hash`, PBKDF2 (RFC 8018) with SHA-512.

See mosquitto_passwd(1) and mosquitto's `lib/password_mosq.c`; salts have twelve bytes, which version 2.0 insists on.
"""

import base64
import binascii
import hashlib
import hmac
import secrets

ITERATIONS = 10_000
"""Our passwords are random and of 256 bits, so that guessing is hopeless anyway."""
SALT_BYTES = 12
_HASH_BYTES = 64
_MOST_ITERATIONS = 10_000_000


def new_password() -> str:
    """Return a random password of 256 bits."""
    return secrets.token_urlsafe(32)


def hashed(password: str) -> str:
    """Return a password's hash, with a new salt."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS, _HASH_BYTES)
    return f"$7${ITERATIONS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def fits(password: str, kept: str) -> bool:
    """Whether a password is the one that was hashed; no password fits what is no hash."""
    parts = kept.split("$")
    if len(parts) != 5 or parts[:2] != ["", "7"]:
        return False
    try:
        iterations = int(parts[2])
        salt, digest = (base64.b64decode(part, validate=True) for part in parts[3:])
    except (ValueError, binascii.Error):
        return False
    if not 1 <= iterations <= _MOST_ITERATIONS or not digest:
        return False
    given = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations, len(digest))
    return hmac.compare_digest(given, digest)
