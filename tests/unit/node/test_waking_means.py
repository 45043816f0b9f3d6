"""What could wake the machine: its network cards and its clock."""

import socket
from pathlib import Path

import pytest

from appliance.node.sleeping.alarm import AlarmClock
from appliance.node.sleeping.wake_on_lan import WakeOnLan, nothing_wakes, read_wake_on_lan


def card(folder: Path, name: str, wakeup: str | None, *, wireless: bool = False) -> None:
    device = folder / "class/net" / name / "device"
    (device / "power").mkdir(parents=True)
    if wakeup is not None:
        (device / "power/wakeup").write_text(wakeup + "\n")
    if wireless:
        (device.parent / "wireless").mkdir()


def test_cards_are_read_and_what_is_no_card_is_not(tmp_path: Path) -> None:
    card(tmp_path, "test-on", "enabled")
    card(tmp_path, "test-off", "disabled")
    card(tmp_path, "test-none", None)
    card(tmp_path, "test-odd", "")
    card(tmp_path, "wlan7", "enabled", wireless=True)
    (tmp_path / "class/net/br0").mkdir()
    assert read_wake_on_lan(tmp_path) == (
        WakeOnLan("test-none", "unknown"),
        WakeOnLan("test-odd", "unknown"),
        WakeOnLan("test-off", "disarmed"),
        WakeOnLan("test-on", "armed"),
    )


def test_this_machines_own_interfaces_can_be_asked() -> None:
    for found in read_wake_on_lan():
        assert found.interface in {name for _, name in socket.if_nameindex()}
        assert found.state in {"armed", "disarmed", "unknown"}


@pytest.mark.parametrize(
    ("interfaces", "sentence"),
    [
        ((WakeOnLan("eth0", "disarmed"), WakeOnLan("eth1", "armed")), None),
        ((), "nothing could wake it: it has no network card with a cable"),
        ((WakeOnLan("eth0", "disarmed"),), "nothing could wake it: Wake-on-LAN is not armed (eth0 disarmed)"),
        ((WakeOnLan("eth0", "unknown"),), "nothing could wake it: Wake-on-LAN is not armed (eth0 unknown)"),
    ],
)
def test_why_nothing_would_wake_it(interfaces: tuple[WakeOnLan, ...], sentence: str | None) -> None:
    said = nothing_wakes(interfaces)
    if sentence is None:
        assert said is None
    else:
        assert said is not None
        assert said.startswith(sentence)


class Rtc:
    """The kernel's files of an RTC, and what was written."""

    def __init__(self, folder: Path) -> None:
        self.alarm = folder / "wakealarm"
        self.alarm.write_text("")
        (folder / "since_epoch").write_text("1000\n")


@pytest.fixture
def rtc(tmp_path: Path) -> Rtc:
    return Rtc(tmp_path)


def test_an_alarm_is_relative_and_not_too_near(rtc: Rtc) -> None:
    clock = AlarmClock(rtc.alarm)
    assert clock.usable
    assert clock.set(3600.4)
    assert rtc.alarm.read_text() == "+3600"
    assert clock.set(1)
    assert rtc.alarm.read_text() == "+30"
    clock.clear()
    assert rtc.alarm.read_text() == "0"


@pytest.mark.parametrize(("theirs", "kept"), [("1500", True), ("9000", False), ("900", False), ("nonsense", False)])
def test_an_earlier_alarm_of_somebody_else_stays(rtc: Rtc, *, theirs: str, kept: bool) -> None:
    rtc.alarm.write_text(theirs)
    clock = AlarmClock(rtc.alarm)
    assert clock.set(3600)
    assert (rtc.alarm.read_text() == theirs) is kept
    clock.clear()
    assert rtc.alarm.read_text() == (theirs if kept else "0")


def test_without_an_rtc_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = AlarmClock(tmp_path / "nowhere" / "wakealarm")
    assert not clock.usable
    assert not clock.set(3600)
    assert "can't be set" in caplog.text
