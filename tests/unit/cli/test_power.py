"""What people type and see; the commands themselves run in tests/system/waking."""

from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from rich.console import Console
from typer.testing import CliRunner

from appliance.bus.messages import Hardware, NodeAnnouncement, Presence
from appliance.bus.power_messages import NodePower
from appliance.bus.waking_messages import RepairNotice
from appliance.cli.app import app
from appliance.cli.moments import moment
from appliance.cli.power_view import NodeView, duration, table

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 27, 21, 0, tzinfo=BERLIN).timestamp()


def at(day: str) -> float:
    return datetime.fromisoformat(day).replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90m", NOW + 5400),
        ("2 h", NOW + 7200),
        ("30 s", NOW + 30),
        ("1d", NOW + 86_400),
        ("22:30", at("2026-11-27 22:30")),
        (" 6:05 ", at("2026-11-28 06:05")),
        ("21:00", at("2026-11-28 21:00")),
        ("2026-12-24 08:00", at("2026-12-24 08:00")),
        ("2026-12-24T08:00:00Z", datetime(2026, 12, 24, 8, 0, tzinfo=UTC).timestamp()),
    ],
)
def test_moments(text: str, expected: float) -> None:
    assert moment(text, NOW, BERLIN) == expected


@pytest.mark.parametrize("text", ["", "teatime", "25:00", "2h30", "2026-11-27 20:59", "-5m", "1999-01-01"])
def test_no_moments(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a time|is in the past"):
        moment(text, NOW, BERLIN)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (59, "59 s"), (60, "1 min"), (3600, "1 h 0 min"), (90_061, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_strangers_say_does_not_move_the_cursor() -> None:
    hardware = Hardware(architecture="x86_64", cpu="a", cores=1, memory_bytes=1)
    announcement = NodeAnnouncement(node="attic", name="Attic", version="1", roles=(), hardware=hardware)
    node = NodeView(
        announcement=announcement,
        presence=Presence(state="offline"),
        power=NodePower(state="awake", since=1.0, reason="fine"),
        repair=RepairNotice(node="attic", problem="lost", summary="gone\x1b[2J[red]for good", since=1.0),
    )
    console = Console(file=StringIO(), width=200, markup=False)
    console.print(table({"attic": node}))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b" not in shown
    assert "lost !" in shown
    assert "[red]" in shown


def test_help_needs_no_settings(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--config-dir", str(tmp_path), "power", "wake", "--help"])
    assert result.exit_code == 0
    assert "--no-wait" in result.output
