"""The report as a file, as the screen and the daemon read it."""

import json
from pathlib import Path

import pytest

from appliance.console.sources import Sources
from appliance.preflight.errors import UnreachedError
from appliance.preflight.run import Unreached
from appliance.preflight.summary import read_summary
from appliance.preflight.written import document, write
from appliance.settings import Settings
from tests.unit.preflight.machines import report


def test_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "preflight" / "local.json"
    found = report("laptop", roles=("hub",))
    write(path, [found])
    assert read_summary(path) == {
        "good": True,
        "summary": found.summary,
        "time": found.time,
        "roles": {"hub": "limited", "expert": "limited", "voice": "limited", "vision": "limited"},
    }
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in path.parent.iterdir()] == ["local.json"]


def test_machines_that_were_not_reached_are_in_it() -> None:
    told = document([report("core2duo"), Unreached("attic", 5.0, UnreachedError("attic: is off"))])
    assert told["good"] is False
    assert [machine["reached"] for machine in told["machines"]] == [True, False]
    assert told["machines"][1]["error"] == {"kind": "UnreachedError", "message": "attic: is off"}


@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"[]", b"{}", b'{"machines": []}', b'{"machines": [3]}', b"[" * 100_000, b"\xff",
        b'{"machines": [{"good": true, "summary": "x", "time": "y"}]}',
        b'{"machines": [{"good": true, "summary": "x", "time": 1, "roles": [1]}]}',
    ],
)  # fmt: skip
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "local.json"
    assert read_summary(path) is None
    path.write_bytes(content)
    assert read_summary(path) is None


async def test_the_screen_has_a_line_of_it(tmp_path: Path) -> None:
    path = tmp_path / "local.json"
    path.write_text(json.dumps({"machines": [{"good": True, "summary": "hub fit\x1b[2J", "time": 1}]}))
    settings = Settings.model_validate({"node": {"status_port": 1}, "gateway": {"port": 1}})

    async def shown(sources: Sources) -> str | None:
        return (await sources.read()).preflight

    assert await shown(Sources(settings=settings, name="x", first_boot=tmp_path / "none")) is None
    reading = Sources(settings=settings, name="x", first_boot=tmp_path / "none", preflight=lambda: read_summary(path))
    assert await shown(reading) == "hub fit?[2J"
