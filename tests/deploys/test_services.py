"""Rouse itself, its broker and its power settings in a root file system, by way of @chroot: files, users, sandboxes."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyinfra_deploys.appliance.layout import STARTED
from tests.deploys.house import House, Outcome
from tests.deploys.roots import copy_of, debian_root
from tests.deploys.systems import ALL_PACKAGES, PARTS, inside
from tests.deploys.wheels import wheelhouse

UNITS = (*STARTED, "rouse-broker.service", "rouse-broker-reload.service", "mosquitto.service")
EXPOSURE = 2.5


@pytest.fixture(scope="module")
def root(can_make_roots: None) -> Iterator[Path]:
    del can_make_roots
    with copy_of(debian_root(ALL_PACKAGES)) as folder:
        yield folder


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheelhouse(tmp_path_factory.mktemp("wheels") / "wheelhouse")


@pytest.fixture(scope="module")
def first(house: House, root: Path, wheels: Path) -> Outcome:
    house.host(
        "attic",
        f"""
[node]
roles = ["hub", "expert"]
groups = ["cellar"]
[broker]
listen_host = "0.0.0.0"
[experts.small]
model = "SmolLM2-135M-Instruct.Q4_1.gguf"
[deploy]
wheelhouse = "{wheels}"
""",
    )
    (house.folder / "groups").mkdir()
    (house.folder / "groups" / "cellar.toml").write_text('[log]\nlevel = "debug"\n')
    return converge(house, root)


def converge(house: House, root: Path, *more: str) -> Outcome:
    return house.deploy(f"@chroot{root}", "--as", "attic", *PARTS, *more)


def test_first_run_changes_and_second_does_not(house: House, root: Path, first: Outcome) -> None:
    assert first.code == 0, (first.output, first.errors)
    assert len(first.changed()) > 20
    second = converge(house, root)
    assert (second.code, second.changed()) == (0, [])


def test_the_program_is_installed(root: Path, first: Outcome, wheels: Path) -> None:
    assert first.code == 0
    assert inside(root, "/usr/bin/rouse", "--version").startswith("rouse ")
    link = (root / "usr/lib/rouse").readlink()
    assert re.fullmatch("rouse-[0-9a-f]{16}", str(link))
    listed = inside(root, "/usr/lib/rouse/bin/pip", "list", "--format=freeze", "--disable-pip-version-check")
    names = {line.partition("==")[0].lower().replace("_", "-") for line in listed.splitlines()}
    wanted = {
        line.partition("==")[0] for line in (wheels / "requirements.txt").read_text().splitlines() if "==" in line
    }
    assert wanted - {name.lower() for name in names} == set()
    assert not list((root / "var/cache/rouse").iterdir())


def test_a_damaged_wheel_is_refused_and_the_old_program_stays(
    house: House, root: Path, first: Outcome, wheels: Path
) -> None:
    assert first.code == 0
    before = (root / "usr/lib/rouse").readlink()
    listed, wheel = wheels / "requirements.txt", next(wheels.glob("rouse-*.whl"))
    kept, content = listed.read_text(), wheel.read_bytes()
    try:
        listed.write_text(kept + "# another list\n")
        wheel.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        damaged = converge(house, root, "--part", "appliance")
        assert damaged.code != 0
        assert (root / "usr/lib/rouse").readlink() == before
        assert inside(root, "/usr/bin/rouse", "--version").startswith("rouse ")
        wheel.write_bytes(content)
        assert converge(house, root).code == 0
        assert (root / "usr/lib/rouse").readlink() != before
        assert (root / "usr/lib" / before).is_dir(), "the one before stays, to go back to"
    finally:
        listed.write_text(kept)
        wheel.write_bytes(content)
    assert converge(house, root).code == 0


def test_settings_are_the_machines_own(root: Path, first: Outcome) -> None:
    assert first.code == 0
    config = root / "etc/rouse"
    assert sorted(str(path.relative_to(config)) for path in config.rglob("*.toml")) == [
        "groups/cellar.toml",
        "hosts/attic.toml",
        "machine.toml",
    ]
    assert tomllib.loads((config / "machine.toml").read_text())["node"] == {"supervisor": "systemd"}
    for name in ("groups/cellar.toml", "hosts/attic.toml"):
        assert inside(root, "stat", "-c", "%a %U:%G", f"/etc/rouse/{name}").strip() == "640 root:rouse"
    shown = inside(root, "hostname", "attic") + inside(root, "/usr/bin/rouse", "config", "show", "node.supervisor")
    assert "/etc/rouse/machine.toml" in shown


def test_units_are_good(root: Path, first: Outcome) -> None:
    assert first.code == 0
    (root / "run/rouse/config").mkdir(parents=True, exist_ok=True)
    names = [f"/etc/systemd/system/{unit.replace('@', '@x')}" for unit in UNITS if unit != "mosquitto.service"]
    said = inside(root, "systemd-analyze", "verify", "--man=no", *names, "rouse-broker.path", check=False)
    ours = [line for line in said.splitlines() if "rouse" in line or "mosquitto" in line]
    assert ours == []


def test_exposure(root: Path, first: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    assert first.code == 0
    found = {}
    for unit in (unit for unit in UNITS if unit.endswith(".service")):
        folder = "/usr/lib/systemd/system" if unit == "mosquitto.service" else "/etc/systemd/system"
        said = inside(
            root,
            "systemd-analyze",
            "security",
            "--offline=true",
            "--no-pager",
            f"{folder}/{unit}",
        )
        match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
        assert match is not None, said
        found[unit] = float(match[1])
    table = "".join(f"{exposure:4.1f}  {unit}\n" for unit, exposure in found.items())
    with capsys.disabled():
        sys.stdout.write(f"\n{table}")
    assert {unit: exposure for unit, exposure in found.items() if exposure > EXPOSURE} == {}


def test_units_are_enabled(root: Path, first: Outcome) -> None:
    assert first.code == 0
    states = {
        unit: inside(root, "systemctl", "is-enabled", unit, check=False).strip()
        for unit in (
            *("rouse-first-boot.service", "rouse-preflight.timer", "rouse-hub.service", "rouse-node.service"),
            *("rouse-console@tty1.service", "rouse-console@ttyS0.service", "rouse-broker.service"),
            *("mosquitto.service", "getty@tty1.service", "serial-getty@ttyS0.service"),
        )
    }
    assert {unit for unit, state in states.items() if state == "masked"} == {
        "getty@tty1.service",
        "serial-getty@ttyS0.service",
    }
    assert {unit for unit, state in states.items() if state == "disabled"} == {"mosquitto.service"}
    assert {state for unit, state in states.items() if unit.startswith("rouse-")} == {"enabled"}


def test_another_terminal(house: House, root: Path, first: Outcome) -> None:
    assert first.code == 0
    file = house.folder / "hosts" / "attic.toml"
    kept = file.read_text()
    try:
        file.write_text(f'{kept}[console]\nterminals = ["tty1"]\n')
        titles = [title.partition(": ")[2] for title in converge(house, root).changed()]
        assert titles == ["Write /etc/rouse/hosts/attic.toml", "Show the status screen"]
        assert inside(root, "systemctl", "is-enabled", "serial-getty@ttyS0.service", check=False).strip() != "masked"
    finally:
        file.write_text(kept)
    assert converge(house, root).code == 0


def test_the_image_brings_its_own_program(house: House, root: Path, first: Outcome) -> None:
    """Without wheels, the program has to be there; nothing is installed."""
    assert first.code == 0
    file = house.folder / "hosts" / "attic.toml"
    kept = file.read_text()
    link = root / "usr/lib/rouse"
    target = link.readlink()
    try:
        file.write_text("".join(line for line in kept.splitlines(keepends=True) if "wheelhouse" not in line))
        assert converge(house, root).code == 0
        link.unlink()
        missing = converge(house, root, "--dry")
        assert missing.code != 0
        assert "rouse image wheelhouse" in missing.errors_of("appliance")
    finally:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        file.write_text(kept)
    assert converge(house, root).code == 0


def test_power(root: Path, first: Outcome) -> None:
    assert first.code == 0
    assert "WakeOnLan=magic" in inside(root, "systemd-analyze", "cat-config", "systemd/network/99-default.link") or (
        "WakeOnLan=magic" in (root / "etc/systemd/network/99-default.link.d/50-rouse.conf").read_text()
    )
    assert "AllowSuspend=yes" in inside(root, "systemd-analyze", "cat-config", "systemd/sleep.conf")
    assert "HandleLidSwitch=ignore" in inside(root, "systemd-analyze", "cat-config", "systemd/logind.conf")
    # What is made of a folder may become an expert's machine, which has to sleep.
    assert inside(root, "systemctl", "is-enabled", "suspend.target", check=False).strip() == "static"


def test_mosquitto_takes_its_configuration(root: Path, first: Outcome) -> None:
    """It reads all of it before it looks at the files that the hub will write."""
    assert first.code == 0
    said = subprocess.run(
        ["unshare", "--net", "chroot", str(root), "timeout", "5", "mosquitto", "-c", "/etc/mosquitto/rouse.conf"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "Unknown configuration" not in said.stdout + said.stderr
    assert "/var/lib/rouse-broker" in said.stdout + said.stderr
