"""How a machine that runs the image is updated."""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, StringConstraints, field_validator

from appliance.settings.section import Name, Section, conflict

Hours = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]
Interval = Annotated[float, Field(ge=60, le=30 * 86_400, allow_inf_nan=False, json_schema_extra={"unit": "seconds"})]
Quiet = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False, json_schema_extra={"unit": "seconds"})]

_SOURCE_FORM = "expected https://host/folder, or a folder of this machine such as /mnt/updates"


class UpdateSettings(Section):
    """Where new versions of the image come from, and when they are installed; see docs/updates.md."""

    source: str | None = None
    """Folder with SHA256SUMS, SHA256SUMS.gpg and the files that they name: `https://host/folder`, or a folder of this
    machine for a house without internet. Nothing is looked for when not set."""
    channel: Name | None = None
    """Folder within `source`, such as `stable` or `beta`."""
    check_interval: Interval = 86_400.0
    """Time between two looks at the source, give or take a tenth. Images are not published more often than daily."""
    install: Literal["ask", "automatic"] = "ask"
    """Whether a new version waits until somebody asks for it, or is installed by itself within `hours`."""
    hours: Hours = "02:00-05:00"
    """When automatic updates may begin, by the machine's time zone. At night nobody waits for the restart."""
    quiet: Quiet = 300.0
    """How long nobody must have used this machine's experts before an update is installed, and before the restart
    that it needs. Nothing is ever installed while an answer is generated."""
    allow_http: bool = False
    """Whether plain http is allowed elsewhere than on loopback. The signature protects what is downloaded; who
    listens learns which versions this machine asks for."""
    ca_file: Path | None = None
    """CA certificates (PEM) that an https source is checked against; the system's when not set."""
    notes_url: str | None = None
    """Where people read about a version; `{version}` stands for it."""

    @field_validator("source")
    @classmethod
    def _check_source(cls, source: str | None) -> str | None:
        if source is None:
            return None
        if source.startswith("/"):
            return source.rstrip("/") or "/"
        try:
            parts = urlsplit(source)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or parts.query or parts.fragment:
            raise ValueError(_SOURCE_FORM)
        if parts.username or parts.password:
            raise conflict("source", "must not hold a user or password: what is published is public")
        return source.rstrip("/")

    @field_validator("notes_url")
    @classmethod
    def _check_notes(cls, url: str | None) -> str | None:
        if url is not None and re.fullmatch(r"https?://[^\s]{1,500}", url) is None:
            raise ValueError("expected https://host/path")
        return url
