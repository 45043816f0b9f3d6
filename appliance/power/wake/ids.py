"""Names for what the hub asks for on the bus."""

import secrets


def new_id() -> str:
    """Return an id that no other message has."""
    return secrets.token_hex(16)
