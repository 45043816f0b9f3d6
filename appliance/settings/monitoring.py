"""What measures the house, and for how long it is kept."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from appliance.settings.section import Seconds, Section


class MonitoringSettings(Section):
    """Prometheus and Grafana on the hub, a node exporter on each machine; see docs/monitoring.md.

    The deploys set them up. Everything listens on loopback, and on the overlay network where a machine is in one.
    """

    enabled: bool = False
    """Whether the deploys install it. It costs the hub about 150 MB of memory, and 50 MB with Grafana's 200."""
    grafana: bool = False
    """Whether the hub gets Grafana too, from Grafana's own package repository."""
    grafana_repository: str = "https://apt.grafana.com"
    """Where Debian packages of Grafana come from."""
    grafana_keyring: Path | None = None
    """File with that repository's signing key, on the machine that deploys. Required, so that nobody trusts a key that
    came from the same place as the packages."""
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """For how many days Prometheus keeps what it measured. A quarter shows a heating season's changes."""
    retention_megabytes: Annotated[int, Field(ge=64, le=10_000_000)] = 2048
    """How much of the disk that may take; the oldest goes first."""
    scrape_interval: Seconds = 30.0
    """Time between two measurements of each machine."""
    prometheus_port: Annotated[int, Field(ge=1, le=65535)] = 9090
    """Port of Prometheus."""
    node_exporter_port: Annotated[int, Field(ge=1, le=65535)] = 9100
    """Port of the node exporter."""
    grafana_port: Annotated[int, Field(ge=1, le=65535)] = 3000
    """Port of Grafana."""
    textfiles: Path = Path("/var/lib/prometheus/node-exporter")
    """Folder of metrics that the node exporter passes on, as Debian's package has it; backups write theirs there."""
    disk_full_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """An alert says when a file system has less than this share free."""
    temperature_celsius: Annotated[float, Field(gt=0, le=150)] = 85.0
    """An alert says when a processor is hotter than this for a quarter of an hour."""
    backup_hours: Annotated[int, Field(ge=1, le=10_000)] = 50
    """An alert says when the last good backup is older: two nights and a little were missed then."""
    certificate_days: Annotated[int, Field(ge=1, le=365)] = 14
    """An alert says when a certificate ends in less than so many days: it should have been renewed long before."""

    @field_validator("grafana_repository")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if re.fullmatch(r"https?://[A-Za-z0-9.:/_~-]+", url) is None:
            raise ValueError("expected https://host, with a path where there is one")
        return url

    @field_validator("textfiles")
    @classmethod
    def _check_folder(cls, folder: Path) -> Path:
        if re.fullmatch(r"/[A-Za-z0-9._/-]+", str(folder)) is None or ".." in folder.parts:
            raise ValueError(
                "expected an absolute path of letters, digits and ._-, as it becomes part of a command line"
            )
        return folder
