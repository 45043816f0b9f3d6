"""The composed machines, and settings to check them by."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from appliance.models import catalogue
from appliance.preflight.dump import Dump, parse
from appliance.preflight.report import Report, report_on
from appliance.preflight.result import Result
from appliance.preflight.wanted import Wanted, wanted_of
from appliance.settings import Settings
from appliance.settings.section import Role

FOLDER = Path(__file__).parent
TOKEN = "composed"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.dump")))


def content(name: str) -> bytes:
    return (FOLDER / f"{name}.dump").read_bytes()


def dump(name: str) -> Dump:
    return parse(content(name), TOKEN)


@cache
def _catalogue() -> catalogue.Catalogue:
    return catalogue.load()


def wanted(settings: Mapping[str, Any] | None = None, roles: tuple[Role, ...] | None = None) -> Wanted:
    return wanted_of(Settings.model_validate(settings or {}), _catalogue(), roles=roles)


def report(name: str, settings: Mapping[str, Any] | None = None, roles: tuple[Role, ...] | None = None) -> Report:
    return report_on(dump(name), wanted(settings, roles), host=name, time=1795876200.0, seconds=0.5, moment=None)


def results(found: Report) -> dict[str, Result]:
    named = {result.id: result for result in found.results}
    assert len(named) == len(found.results), "two checks have one name"
    return named


def fitness(found: Report) -> dict[str, str]:
    return {one.role: one.fitness for one in found.fitness}
