"""Monitoring, vision and backup in a root file system, by way of @chroot, and under the real systemd."""

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploys.booted import Booted, booted
from tests.deploys.house import House, Outcome
from tests.deploys.roots import PACKAGES, copy_of, debian_root

EXTRAS = ("openssh-client", "podman", "prometheus", "prometheus-node-exporter", "restic")
NAMES = ("users", "ssh", "firewall", "monitoring-keys", "monitoring", "vision", "backup")
PARTS = tuple(argument for name in NAMES for argument in ("--part", name))
UNITS = (
    "prometheus.service",
    "prometheus-node-exporter.service",
    "rouse-backup.service",
    "rouse-backup-verify.service",
)
EXPOSURE = 2.5
PATIENCE_SECONDS = 120
SECRETS = {"door": "s3cr3t-of-the-door/@:", "broker": "s3cr3t-of-the-broker"}


@pytest.fixture(scope="module")
def root(debian: Path) -> Iterator[Path]:
    del debian
    with copy_of(debian_root((*PACKAGES, *EXTRAS))) as folder:
        yield folder


@pytest.fixture(scope="module")
def settings(house: House) -> str:
    for name, content in SECRETS.items():
        (house.folder / f"{name}.password").write_text(f"{content}\n")
    return f"""
[node]
roles = ["hub", "vision"]
status_host = "0.0.0.0"
[system]
ssh_keys = ["{house.public_key}"]
[overlay]
kind = "wireguard"
address = "10.77.0.1/24"
[monitoring]
enabled = true
[backup]
repository = "/srv/backup"
[broker]
url = "mqtts://hub.lan"
[vision]
mqtt_password_file = "{house.folder}/broker.password"
[vision.cameras.front-door]
url = "rtsp://192.168.1.31:554/main"
detect_url = "rtsp://192.168.1.31:554/sub"
username = "camera"
password_file = "{house.folder}/door.password"
[vision.cameras.yard]
url = "rtsp://192.168.1.32/stream1"
"""


@pytest.fixture(scope="module")
def first(house: House, root: Path, settings: str) -> Outcome:
    house.host("hub", settings)
    house.host("attic", '[node]\nroles = ["expert"]\nstatus_host = "0.0.0.0"\n[monitoring]\nenabled = true\n'
                        '[overlay]\nkind = "wireguard"\naddress = "10.77.0.2/24"\n')  # fmt: skip
    return converge(house, root)


def converge(house: House, root: Path) -> Outcome:
    return house.deploy(f"@chroot{root}", "--as", "hub", *PARTS)


def inside(root: Path, *command: str, check: bool = True) -> str:
    """Run a program of the root, with /proc, and without its network."""
    script = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    unshare = ["unshare", "--mount", "--net", "--pid", "--fork", "--propagation", "private", "sh", "-ec", script]
    done = subprocess.run([*unshare, str(root), *command], check=False, capture_output=True, text=True)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def test_first_run_changes_and_second_does_not(house: House, root: Path, first: Outcome) -> None:
    assert first.code == 0, (first.output, first.errors)
    assert len(first.changed()) > 15
    second = converge(house, root)
    assert (second.code, second.changed()) == (0, [])


def test_prometheus_takes_the_configuration(root: Path, first: Outcome) -> None:
    assert first.code == 0
    inside(root, "promtool", "check", "config", "--syntax-only", "/etc/prometheus/rouse/prometheus.yml")
    inside(root, "promtool", "check", "rules", "/etc/prometheus/rouse/alerts.yml")
    text = (root / "etc/prometheus/rouse/prometheus.yml").read_text()
    assert '"10.77.0.2:8101"' in text
    assert '"10.77.0.2:9100"' in text
    # Keys belong to machines, and what is in a folder is none yet.
    assert not (root / "etc/prometheus/rouse/keys").exists()


def test_the_quadlet_becomes_a_service(root: Path, first: Outcome) -> None:
    assert first.code == 0
    made = inside(root, "sh", "-c", "/usr/libexec/podman/quadlet -dryrun 2>/run/quadlet.log || cat /run/quadlet.log")
    unit = made.partition("---frigate.service---\n")[2]
    assert "ghcr.io/blakeblackshear/frigate:" in unit, made
    for wanted in (
        "--publish 8971:8971",
        "--security-opt no-new-privileges",
        "--shm-size 104m",
        "-v /var/lib/rouse-vision/secrets:/run/secrets:ro",
        "-v /var/lib/rouse-vision/config/config.yml:/config/config.yml:ro",
    ):
        assert wanted.replace(" ", "") in unit.replace(" ", "").replace("=", ""), (wanted, unit)
    file = root / "run/frigate.service"
    file.write_text(unit)
    said = inside(root, "systemd-analyze", "verify", "--man=no", "/run/frigate.service", check=False)
    assert [line for line in said.splitlines() if "frigate" in line] == []


def test_passwords_are_in_their_files_and_nowhere_else(root: Path, first: Outcome) -> None:
    assert first.code == 0
    found = sorted(
        str(path.relative_to(root))
        for folder in ("etc", "var/lib/rouse-vision", "usr/lib/systemd")
        for path in (root / folder).rglob("*")
        if path.is_file() and not path.is_symlink() and b"s3cr3t" in path.read_bytes()
    )
    secrets = "var/lib/rouse-vision/secrets"
    assert found == [f"{secrets}/FRIGATE_FRONT_DOOR_LOGIN", f"{secrets}/FRIGATE_MQTT_PASSWORD"]
    for name in found:
        assert (root / name).stat().st_mode & 0o077 == 0
    assert (root / found[0]).read_text() == "camera:s3cr3t-of-the-door%2F%40%3A\n"
    assert "s3cr3t" not in str(first.output)
    assert "s3cr3t" not in first.errors


def test_units_are_good(root: Path, first: Outcome) -> None:
    assert first.code == 0
    program = root / "usr/bin/rouse"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    timers = ("rouse-backup.timer", "rouse-backup-verify.timer")
    names = [f"/etc/systemd/system/{name}" for name in (*UNITS[2:], *timers)]
    said = inside(root, "systemd-analyze", "verify", "--man=no", *names, *UNITS[:2], check=False)
    assert [line for line in said.splitlines() if "rouse" in line or "prometheus" in line] == []
    for unit in (*UNITS[:2], *timers):
        assert inside(root, "systemctl", "is-enabled", unit).strip() == "enabled"


def test_exposure(root: Path, first: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    assert first.code == 0
    found = {}
    for unit in UNITS:
        said = inside(
            root, "env", "SYSTEMD_COLORS=0", "systemd-analyze", "security", "--offline=true", "--no-pager", unit
        )
        match = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
        assert match is not None, said
        found[unit] = float(match[1])
    with capsys.disabled():
        for unit, exposure in found.items():
            print(f"\n{unit}: {exposure}", end="")  # noqa: T201 - the numbers are asked for
    assert max(found.values()) <= EXPOSURE


def test_the_firewall_lets_in_what_is_published(root: Path, first: Outcome) -> None:
    assert first.code == 0
    rules = inside(root, "sh", "-c", "nft -f /etc/nftables.conf && nft list ruleset")
    overlay = rules.partition("chain overlay")[2].partition("}\n\n")[0]
    underlay = rules.partition("chain underlay")[2].partition("}\n\n")[0]
    forward = rules.partition("chain forward")[2].partition("\n\t}\n")[0]
    assert "tcp dport 9100 accept" in overlay
    assert "tcp dport 9100" not in underlay
    assert "tcp dport 8971 accept" in underlay
    assert "ct status dnat goto zones" in forward


def test_a_camera_that_is_gone_leaves_no_password(house: House, root: Path, first: Outcome, settings: str) -> None:
    assert first.code == 0
    before, _, rest = settings.partition("[vision.cameras.front-door]")
    house.host("hub", before + rest[rest.index("[vision.cameras.yard]") :])
    try:
        assert converge(house, root).code == 0
        assert sorted(path.name for path in (root / "var/lib/rouse-vision/secrets").iterdir()) == [
            "FRIGATE_MQTT_PASSWORD"
        ]
        assert "front-door" not in (root / "var/lib/rouse-vision/config/config.yml").read_text()
    finally:
        house.host("hub", settings)
        assert converge(house, root).code == 0
    assert converge(house, root).changed() == []


def test_a_missing_password_is_one_sentence(house: House, root: Path, first: Outcome, settings: str) -> None:
    assert first.code == 0
    house.host("hub", settings.replace("door.password", "nowhere.password"))
    try:
        outcome = converge(house, root)
        assert outcome.code != 0
        assert "vision.cameras.front-door.password_file" in outcome.errors_of("vision")
        assert "Traceback" not in outcome.errors
    finally:
        house.host("hub", settings)


def test_what_is_no_longer_wanted_goes(house: House, root: Path, first: Outcome, settings: str) -> None:
    assert first.code == 0
    text = settings.replace('repository = "/srv/backup"', "").replace("enabled = true", "enabled = false")
    house.host("hub", text.partition("[vision.cameras")[0])
    try:
        assert converge(house, root).code == 0
        for gone in (
            "etc/systemd/system/prometheus.service.d/50-rouse.conf",
            "etc/systemd/system/rouse-backup.timer",
            "etc/containers/systemd/frigate.container",
        ):
            assert not (root / gone).exists()
        for unit in UNITS[:2]:
            assert inside(root, "systemctl", "is-enabled", unit, check=False).strip() == "disabled"
        assert converge(house, root).changed() == []
    finally:
        house.host("hub", settings)
        assert converge(house, root).code == 0


@pytest.fixture
def running(root: Path, first: Outcome) -> Iterator[Booted]:
    """The machine, booted; a stand-in for our program does with restic what it would."""
    assert first.code == 0
    program = root / "usr/bin/rouse"
    program.write_text(
        "#!/bin/sh\nset -eu\nexport RESTIC_REPOSITORY=/srv/backup RESTIC_PASSWORD=test HOME=/var/lib/rouse/backup\n"
        "mkdir -p /var/lib/rouse/backup\n[ -e /srv/backup/config ] || restic init\n"
        "cp -p /var/lib/rouse/secrets/hub/gateway.key /var/lib/rouse/backup/copy\n"
        "restic backup --quiet /var/lib/rouse/backup/copy\n"
        "echo rouse_backup_last_success_timestamp_seconds 1 > /var/lib/prometheus/node-exporter/rouse_backup.prom\n"
        "chmod 644 /var/lib/prometheus/node-exporter/rouse_backup.prom\n"
    )
    program.chmod(0o755)
    key = root / "var/lib/rouse/secrets/hub/gateway.key"
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text("the-key\n")
    key.chmod(0o600)
    subprocess.run(["chroot", str(root), "chown", "rouse-hub:", "/var/lib/rouse/secrets/hub/gateway.key"], check=True)
    (root / "srv/backup").mkdir(exist_ok=True)
    inside(root, "ssh-keygen", "-q", "-A")
    # The overlay's address is there without the overlay.
    file = root / "etc/systemd/network/10-test.network"
    file.write_text("[Match]\nName=lo\n[Address]\nAddress=10.77.0.1/32\n")
    inside(root, "systemctl", "--quiet", "enable", "systemd-networkd.service")
    with booted(root) as machine:
        yield machine


def test_they_run_in_their_sandboxes(running: Booted) -> None:
    for unit in UNITS[:2]:
        _until(running, unit, "systemctl", "is-active", unit, wanted="active")
    running.run("systemctl", "start", "rouse-backup.service")
    assert "restic" not in running.run("systemctl", "--failed", "--plain", "--no-legend")
    assert running.run("ls", "/srv/backup/config")
    query = ("promtool", "query", "instant", "http://127.0.0.1:9090")
    _until(running, "the exporter", *query, 'up{job="node", node="hub"}', wanted="=> 1 @")
    _until(running, "the backup", *query, "rouse_backup_last_success_timestamp_seconds", wanted="=> 1 @")
    _until(running, "what the kernel tells", *query, "node_memory_MemAvailable_bytes > 0", wanted="=> ")
    # A dollar sign means something to systemd.
    shown = running.run("journalctl", "--no-pager", "-u", "prometheus-node-exporter.service")
    assert "flag=^/(dev|proc|run|sys|var/lib/containers)($|/)" in shown
    # Only the hub reads its key, and Prometheus gets it all the same.
    number = running.run("systemctl", "show", "--property=MainPID", "--value", "prometheus.service").strip()
    file = "/run/credentials/prometheus.service/rouse-gateway.key"
    assert running.run("nsenter", "--target", number, "--mount", "--", "cat", file) == "the-key\n"
    listening = running.run("ss", "-Hltn")
    assert "127.0.0.1:9090" in listening
    assert "10.77.0.1:9100" in listening
    assert "*:9100" not in listening
    assert "*:9090" not in listening
    assert running.run("systemctl", "list-timers", "--no-legend", "rouse-backup*").count("rouse-backup") >= 2


def _until(machine: Booted, what: str, *command: str, wanted: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    said = ""
    while time.monotonic() < deadline:
        said = machine.run(*command, check=False)
        if wanted in said.splitlines() or (wanted.startswith("=>") and wanted in said):
            return
        time.sleep(0.5)
    log = machine.run("journalctl", "--no-pager", "-n", "40", "-u", "prometheus*", check=False)
    raise AssertionError(f"{what}: {said}\n{log}")
