"""Reads rouse.toml alone."""

import tomllib
from pathlib import Path

from appliance.settings.model import Settings


def load(config_dir: Path) -> Settings:
    """Return the settings of `rouse.toml`."""
    return Settings.model_validate(tomllib.loads((config_dir / "rouse.toml").read_text(encoding="utf-8")))
