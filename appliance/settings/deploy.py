"""How `rouse deploy` reaches the machine."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from appliance.settings.section import Seconds, Section


class DeploySettings(Section):
    """How `rouse deploy` reaches the machine over SSH.

    It belongs into `hosts/NAME.toml` of the folder that is deployed from; the machine itself does not read it.
    """

    address: str | None = None
    """Name or address of the machine; the name of its file when not set. An entry in `~/.ssh/config` counts as well."""
    port: Annotated[int, Field(ge=1, le=65535)] = 22
    """Port of its SSH server."""
    user: str = "admin"
    """User to log in as. Any but root needs sudo there."""
    key_file: Path | None = None
    """Private key without a passphrase; when not set, those of the SSH agent and `~/.ssh` are tried. A key with a
    passphrase belongs into the agent."""
    known_hosts: Path | None = None
    """File of known host keys; `~/.ssh/known_hosts` when not set."""
    host_key: Literal["accept-new", "known"] = "accept-new"
    """Whether a machine that was never seen is taken as it is and remembered, or refused. A key that has changed is
    always refused."""
    sudo_password_file: Path | None = None
    """File whose first line is the user's password for sudo; `rouse deploy` asks for it when not set."""
    wheelhouse: Path | None = None
    """Folder of wheels that Rouse is installed from, as `rouse image wheelhouse` makes it; without it, Rouse must be
    there already, as it is on the image."""
    models: Path | None = None
    """Folder of models (GGUF) on the machine that deploys: what is there is copied, and only the rest is downloaded by
    the machine itself."""
    connect_timeout: Seconds = 10.0
    """How long a connection may take."""

    @field_validator("address")
    @classmethod
    def _check_address(cls, address: str | None) -> str | None:
        if address is not None and re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.:%_-]*[A-Za-z0-9])?", address) is None:
            raise ValueError("expected a name such as attic.local or an address such as 192.168.1.20")
        return address

    @field_validator("user")
    @classmethod
    def _check_user(cls, user: str) -> str:
        if re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user) is None:
            raise ValueError("expected the name of a user, such as admin")
        return user
