"""One typed settings tree from files and environment."""

from appliance.settings.errors import InvalidSettingsError, SettingsError, UnknownKeyError
from appliance.settings.load import LoadedSettings, load
from appliance.settings.model import Settings
from appliance.settings.source import Source

__all__ = [
    "InvalidSettingsError",
    "LoadedSettings",
    "Settings",
    "SettingsError",
    "Source",
    "UnknownKeyError",
    "load",
]
