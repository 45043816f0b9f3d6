"""Rouse on a machine that really runs: deployed over SSH, with systemd, D-Bus, polkit, mosquitto and llama.cpp.

Every service starts in its sandbox, and does what it is there for; what it must not see, it does not see.
"""

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from scripts.house.appliance import MODEL
from tests.deploys.booted import Booted, booted
from tests.deploys.house import House, Outcome, password_hash
from tests.deploys.roots import copy_of, debian_root
from tests.deploys.systems import ALL_PACKAGES, PARTS, as_user
from tests.deploys.wheels import wheelhouse

pytestmark = pytest.mark.skipif(not MODEL.exists(), reason="the model is not here: make setup")

SECONDS = 120.0
NODES_PORT, CLIENTS_PORT = 8883, 8884
# Issues what a node that is paired gets, as the hub does it; others come shortly before it, while mosquitto reloads.
ISSUE = """
import sys
import time
from pathlib import Path
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from appliance.security.house import house
from appliance.settings import load
settings = load(Path("/etc/rouse"), {}, "attic").settings
offices = house(settings, name="attic")
key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cellar")])
request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
pem = request.public_bytes(serialization.Encoding.PEM)
chain = offices.trust.authority.sign(pem, name="cellar", roles=("expert",), days=30)
for number in range(20):
    offices.nodes.add(f"shed-{number}")
    time.sleep(0.05)
offices.nodes.add("cellar")
print(chain.decode() + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
      serialization.NoEncryption()).decode())
"""
# Shows what a terminal shows, and ends when it has shown what is waited for.
TERMINAL = """
import os, sys
master, slave = os.openpty()
print(os.ttyname(slave), flush=True)
shown = b""
while sys.argv[1].encode() not in shown:
    shown += os.read(master, 65536)
print("shown", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def machine(can_make_roots: None, house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    """A Debian machine with root's key; nothing of Rouse is on it."""
    wheels = wheelhouse(tmp_path_factory.mktemp("wheels") / "wheelhouse")
    del can_make_roots
    with copy_of(debian_root(ALL_PACKAGES)) as root:
        (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
        (root / "root/.ssh/authorized_keys").write_text(house.public_key + "\n")
        subprocess.run(["chroot", str(root), "ssh-keygen", "-q", "-A"], check=True)
        (root / "etc/hostname").write_text("attic\n")
        with booted(root) as running:
            running.run("hostname", "attic")
            write_settings(house, running, wheels)
            yield running


def write_settings(house: House, machine: Booted, wheels: Path, more: str = "") -> None:
    house.host(
        "attic",
        f"""
[node]
name = "attic"
roles = ["hub", "expert"]
[broker]
listen_host = "0.0.0.0"
[experts.small]
model = "{MODEL.name}"
context = 1024
slots = 1
threads = 1
[deploy]
address = "{machine.address}"
user = "root"
key_file = "{house.key}"
known_hosts = "{house.folder / "known_hosts"}"
wheelhouse = "{wheels}"
models = "{MODEL.parent}"
{more}
""",
    )


@pytest.fixture(scope="module")
def first(house: House, machine: Booted) -> Outcome:
    assert machine.run("ls", "/etc/rouse", check=False) == ""
    outcome = house.deploy("attic", *PARTS)
    logs = machine.run("journalctl", "--no-pager", "-n", "60", check=False) if outcome.code else ""
    assert outcome.code == 0, f"{json.dumps(outcome.output, indent=1)}{outcome.errors}{logs}"
    return outcome


def until(machine: Booted, *command: str, wanted: str) -> None:
    """Wait until a command says something."""
    deadline = time.monotonic() + SECONDS
    while wanted not in (said := machine.run(*command, check=False)):
        if time.monotonic() > deadline:
            logs = machine.run("journalctl", "--no-pager", "-n", "80", check=False)
            raise AssertionError(f"{' '.join(command)} says {said!r}, and not {wanted}: {logs}")
        time.sleep(0.3)


def main_process(machine: Booted, unit: str) -> str:
    return machine.run("systemctl", "show", "--value", "--property=MainPID", unit).strip()


def test_everything_runs_in_its_sandbox(machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    for unit in ("rouse-hub", "rouse-node", "rouse-expert@small", "mosquitto"):
        until(machine, "systemctl", "is-active", f"{unit}.service", wanted="active\n")
    failed = machine.run("systemctl", "--failed", "--plain", "--no-legend").split()
    assert [unit for unit in failed if "rouse" in unit or "mosquitto" in unit] == []
    users = {
        unit: machine.run("ps", "-o", "user:20=", "-p", main_process(machine, unit)).strip()
        for unit in ("rouse-hub", "rouse-node", "rouse-expert@small", "mosquitto")
    }
    assert users == {
        "rouse-hub": "rouse-hub",
        "rouse-node": "rouse-node",
        "rouse-expert@small": "rouse-expert",
        "mosquitto": "mosquitto",
    }
    for unit in users:
        status = machine.run("cat", f"/proc/{main_process(machine, unit)}/status")
        told = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert (told["CapEff"], told["CapBnd"], told["NoNewPrivs"], told["Seccomp"]) == ("0" * 16, "0" * 16, "1", "2")


def test_the_house_answers(machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    until(machine, "journalctl", "--no-pager", "-u", "rouse-node", wanted="expert small is ready")
    script = (
        "import json,sys,urllib.request; key=open('/var/lib/rouse/secrets/hub/gateway.key').read().strip(); "
        "body={'model':'small','max_tokens':4,'messages':[{'role':'user','content':'Hello'}]}; "
        "r=urllib.request.Request('http://127.0.0.1:8100/v1/chat/completions',json.dumps(body).encode(),"
        "{'Authorization':'Bearer '+key,'Content-Type':'application/json'}); "
        "print(urllib.request.urlopen(r,timeout=100).read().decode())"
    )
    until(machine, "/usr/lib/rouse/bin/python", "-c", script, wanted='"choices"')


def test_the_second_deploy_changes_nothing(house: House, first: Outcome) -> None:
    assert first.code == 0
    second = house.deploy("attic", *PARTS)
    assert (second.code, second.changed()) == (0, [])


def test_nobody_reads_what_is_not_theirs(machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    until(machine, "systemctl", "is-active", "rouse-expert@small.service", wanted="active\n")
    state = "/var/lib/rouse"
    readers = {
        f"{state}/secrets/hub/gateway.key": {"rouse-hub"},
        f"{state}/secrets/hub/broker-homeassistant.password": {"rouse-hub"},
        f"{state}/secrets/hub/tls/hub.key": {"rouse-hub"},
        f"{state}/hub/ca/book.json": {"rouse-hub"},
        f"{state}/secrets/bus/broker-rouse.password": {"rouse-hub", "rouse-node"},
        f"{state}/secrets/experts/expert.key": {"rouse-hub", "rouse-node", "rouse-expert"},
        f"{state}/prefixes/small/key": {"rouse-expert"},
        f"{state}/models/{MODEL.name}": {"rouse-hub", "rouse-node", "rouse-expert", "rouse-console", "mosquitto"},
        "/var/lib/rouse-broker/passwords": {"rouse-hub", "mosquitto"},
        "/var/lib/rouse-broker/server.key": {"rouse-hub", "mosquitto"},
        "/etc/rouse/hosts/attic.toml": {"rouse-hub", "rouse-node", "rouse-console"},
        "/run/rouse/experts/rouse.toml": {"rouse-node", "rouse-expert"},
    }
    found = {
        path: {
            user
            for user in ("rouse-hub", "rouse-node", "rouse-expert", "rouse-console", "mosquitto", "nobody")
            if machine.run(*as_user(user, "sh", "-c", f"head -c1 {path} > /dev/null 2>&1 && echo yes"), check=False)
        }
        for path in readers
    }
    assert {path: users - {"nobody"} for path, users in found.items()} == readers
    assert {path for path, users in found.items() if "nobody" in users} == {f"{state}/models/{MODEL.name}"}


def test_an_expert_sees_of_the_house_what_it_needs(machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    until(machine, "systemctl", "is-active", "rouse-expert@small.service", wanted="active\n")
    expert = main_process(machine, "rouse-expert@small.service")

    def seen(command: str) -> str:
        return machine.run("nsenter", "--target", expert, "--mount", "sh", "-c", command, check=False)

    assert seen("ls /var/lib/rouse").split() == ["models", "prefixes", "secrets", "tuning"]
    assert seen("ls /var/lib/rouse/secrets").split() == ["experts"]
    for folder in ("/etc/rouse", "/root", "/home"):
        assert seen(f"ls -A {folder} 2> /dev/null") == "", folder
    for folder in ("/etc", "/usr", "/var/lib/rouse", "/var/lib/rouse/models", "/var/lib/rouse/secrets/experts"):
        assert seen(f"touch {folder}/x 2>/dev/null || echo refused").strip() == "refused", folder


def test_what_root_does_leaves_nothing_that_the_hub_can_not_read(machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    until(machine, "systemctl", "is-active", "rouse-hub.service", wanted="active\n")
    machine.run("rouse", "certificate", "renew", "hub")
    machine.run("rouse", "certificate", "setup")
    folders = ("/var/lib/rouse/hub", "/var/lib/rouse/secrets/hub", "/var/lib/rouse-broker")
    assert machine.run("find", *folders, "!", "-user", "rouse-hub").split() == []


def test_only_the_node_daemon_may_sleep_and_start_experts(machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    until(machine, "systemctl", "is-active", "rouse-node.service", wanted="active\n")
    until(machine, "systemctl", "is-active", "rouse-hub.service", wanted="active\n")

    def may(service: str, action: str, **details: str) -> bool:
        process = main_process(machine, service)
        more = [part for name, value in details.items() for part in ("--detail", name, value)]
        asked = ["pkcheck", "--action-id", action, "--process", process, *more]
        said = machine.run("sh", "-c", '"$@" > /dev/null && echo granted', "sh", *asked, check=False)
        return "granted" in said

    login, systemd = "org.freedesktop.login1", "org.freedesktop.systemd1.manage-units"
    for allowed in ("suspend", "suspend-multiple-sessions", "power-off", "inhibit-block-sleep"):
        assert may("rouse-node", f"{login}.{allowed}"), allowed
        assert not may("rouse-hub", f"{login}.{allowed}"), allowed
    for forbidden in ("suspend-ignore-inhibit", "reboot", "hibernate", "set-reboot-parameter"):
        assert not may("rouse-node", f"{login}.{forbidden}"), forbidden
    assert may("rouse-node", systemd, unit="rouse-expert@small.service", verb="start")
    assert may("rouse-node", systemd, unit=r"rouse-expert@big\x2done.service", verb="restart")
    assert may("rouse-node", systemd, unit="rouse-rpc-worker.service", verb="stop")
    for unit, verb in (
        ("ssh.service", "stop"),
        ("rouse-expert@small.service", "set-property"),
        ("rouse-expert@small.service.evil.service/x", "start"),
        ("rouse-hub.service", "restart"),
    ):
        assert not may("rouse-node", systemd, unit=unit, verb=verb), unit
    assert not may("rouse-expert@small", systemd, unit="rouse-expert@small.service", verb="start")


def test_a_hub_can_not_be_put_to_sleep(machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    assert machine.run("systemctl", "is-enabled", "suspend.target", check=False).strip() == "masked"
    assert "HandleLidSwitch=ignore" in machine.run("systemd-analyze", "cat-config", "systemd/logind.conf")
    _, lid, _, delay = machine.run("busctl", "get-property", *LOGIND, "HandleLidSwitch", "InhibitDelayMaxUSec").split()
    assert lid == '"ignore"'
    assert int(delay) >= 15_000_000  # unattended-upgrades wants half a minute


# MQTT 5: CONNECT of a client "cellar" with a clean start.
CONNECT = bytes.fromhex("1013 0004 4d515454 05 02 001e 00 0006") + b"cellar"
LOGIND = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")


class Client:
    """An MQTT 5 client on this machine."""

    def __init__(self, machine: Booted, port: int, context: ssl.SSLContext | None, **account: str) -> None:
        self.codes: dict[str, list[str]] = {"connect": [], "subscribe": [], "publish": []}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        if context is not None:
            self._client.tls_set_context(context)
        if "user" in account:
            self._client.username_pw_set(account["user"], account["password"])
        self._client.on_connect = lambda _c, _u, _f, code, _p: self._note("connect", code)
        self._client.on_subscribe = lambda _c, _u, _m, codes, _p: self._note("subscribe", *codes)
        self._client.on_publish = lambda _c, _u, _m, code, _p: self._note("publish", code)
        self._client.connect(machine.address, port, keepalive=30)
        self._client.loop_start()

    def _note(self, what: str, *codes: ReasonCode) -> None:
        self.codes[what] += [str(code) for code in codes]

    def until(self, what: str) -> str:
        deadline = time.monotonic() + 30
        while not self.codes[what]:
            assert time.monotonic() < deadline, f"no answer to {what}"
            time.sleep(0.05)
        return self.codes[what].pop(0)

    def subscribe(self, topic: str) -> str:
        self._client.subscribe(topic, qos=1)
        return self.until("subscribe")

    def publish(self, topic: str) -> str:
        self._client.publish(topic, "{}", qos=1)
        return self.until("publish")

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def trusted(machine: Booted, first: Outcome, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The house's CA, as a person copies it to a Home Assistant elsewhere."""
    assert first.code == 0
    until(machine, "systemctl", "is-active", "mosquitto.service", wanted="active\n")
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    file.write_text(machine.run("cat", "/var/lib/rouse-broker/ca.pem"))
    return file


@pytest.fixture(scope="module")
def cellar(machine: Booted, trusted: Path) -> Path:
    """Certificate and key of a node that was paired while mosquitto ran."""
    pem = machine.run(*as_user("rouse-hub", "/usr/lib/rouse/bin/python", "-c", ISSUE))
    file = trusted.with_name("cellar.pem")
    file.write_text(pem)
    return file


def is_let_in(machine: Booted, context: ssl.SSLContext) -> bool:
    """Whether the broker talks to who comes with this: TLS 1.3 refuses a client only after its own side is done."""
    with socket.create_connection((machine.address, NODES_PORT), timeout=30) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
                encrypted.sendall(CONNECT)
                return encrypted.recv(4)[:1] == b"\x20"
        except (ssl.SSLError, ConnectionError):
            return False


def tls(trusted: Path, certificate: Path | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trusted)
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


def test_a_node_is_let_in_by_its_certificate_and_for_its_own_topics(
    machine: Booted, trusted: Path, cellar: Path
) -> None:
    client = Client(machine, NODES_PORT, tls(trusted, cellar))
    try:
        assert client.until("connect") == "Success"
        deadline = time.monotonic() + SECONDS
        while client.publish("rouse/v1/nodes/cellar/status") not in {"Success", "No matching subscribers"}:
            assert time.monotonic() < deadline, "mosquitto was not told of a new account"
            time.sleep(0.5)
        assert client.publish("rouse/v1/nodes/attic/status") == "Not authorized"
        assert client.publish("homeassistant/light/kitchen/set") == "Not authorized"
        assert client.subscribe("rouse/v1/nodes/cellar/power/commands") == "Granted QoS 1"
        for foreign in ("#", "rouse/v1/nodes/attic/power/commands", "rouse/v1/agents/home/requests"):
            assert client.subscribe(foreign) in {"Not authorized", "Granted QoS 1"}
    finally:
        client.close()


def test_nobody_comes_in_without_a_certificate(machine: Booted, trusted: Path, cellar: Path) -> None:
    assert cellar.exists()
    assert not is_let_in(machine, tls(trusted))


def test_home_assistant_elsewhere(machine: Booted, trusted: Path) -> None:
    password = machine.run("cat", "/var/lib/rouse/secrets/hub/broker-homeassistant.password").strip()
    client = Client(machine, CLIENTS_PORT, tls(trusted), user="homeassistant", password=password)
    try:
        assert client.until("connect") == "Success"
        assert client.subscribe("rouse/v1/#") == "Granted QoS 1"
        assert client.publish("homeassistant/light/kitchen/set") in {"Success", "No matching subscribers"}
    finally:
        client.close()
    wrong = Client(machine, CLIENTS_PORT, tls(trusted), user="homeassistant", password="wrong")
    assert wrong.until("connect") == "Not authorized"
    wrong.close()


def test_without_encryption_on_loopback_only(machine: Booted, trusted: Path) -> None:
    assert trusted.exists()
    with pytest.raises(ConnectionRefusedError):
        Client(machine, 1883, None)


def test_a_revoked_node_stays_outside(machine: Booted, trusted: Path, cellar: Path) -> None:
    machine.run("rouse", "certificate", "revoke", "cellar", "--yes")
    deadline = time.monotonic() + SECONDS
    while is_let_in(machine, tls(trusted, cellar)):
        assert time.monotonic() < deadline, "a revoked certificate is still let in"
        time.sleep(1)


def test_the_status_screen(machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    enter = ["nsenter", "--target", str(machine.pid), "--mount", "--net", "--pid", "--uts", "--ipc", "--cgroup", "--"]
    with subprocess.Popen(
        [*enter, "python3", "-c", TERMINAL, "attic"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as terminal:
        assert terminal.stdout is not None
        assert terminal.stdin is not None
        try:
            name = terminal.stdout.readline().strip().removeprefix("/dev/").replace("/", "-")
            machine.run("systemctl", "start", f"rouse-console@{name}.service")
            assert terminal.stdout.readline() == "shown\n"
            shown_by = machine.run("ps", "-o", "user:20=", "-p", main_process(machine, f"rouse-console@{name}"))
            assert shown_by.strip() == "rouse-console"
        finally:
            machine.run("systemctl", "stop", f"rouse-console@{name}.service", check=False)
            terminal.stdin.close()


def test_first_boot_in_its_sandbox(machine: Booted, first: Outcome) -> None:
    """The FAT partition is mounted read-only; the unit writes its report there nevertheless."""
    assert first.code == 0
    hashed = password_hash("of the first boot")
    good = f'[node]\nname = "attic"\n[system]\ntime_zone = "Europe/Berlin"\npassword_hash = "{hashed}"\n'
    bad = good.replace("time_zone", "time_zome")
    machine.run("sh", "-c", "mkdir -p /run/rouse/config && mount -t tmpfs none /run/rouse/config")
    try:
        for text in (good, bad):
            machine.run("mount", "-o", "remount,rw", "/run/rouse/config")
            machine.run("sh", "-c", 'printf "%s" "$1" > /run/rouse/config/rouse.toml', "sh", text)
            machine.run("mount", "-o", "remount,ro", "/run/rouse/config")
            machine.run("systemctl", "restart", "rouse-first-boot.service")
        assert machine.run("readlink", "/etc/localtime").strip() == "../usr/share/zoneinfo/Europe/Berlin"
        assert machine.run("stat", "-c", "%a %U:%G", "/etc/rouse/rouse.toml").strip() == "640 root:rouse"
        assert f"admin:{hashed}:" in machine.run("cat", "/etc/shadow")
        assert "system.time_zome" in machine.run("cat", "/run/rouse/config/rouse-errors.txt")
    finally:
        machine.run("umount", "/run/rouse/config")
        machine.run("rm", "-f", "/etc/rouse/rouse.toml")


def test_the_worker_is_a_unit_too(house: House, machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    file = house.folder / "hosts" / "attic.toml"
    file.write_text(file.read_text() + "\n[rpc_worker]\nenabled = true\nthreads = 1\n")
    outcome = house.deploy("attic", "--part", "appliance", "--part", "services")
    assert outcome.code == 0, outcome.output
    until(machine, "systemctl", "is-active", "rouse-rpc-worker.service", wanted="active\n")
    said = machine.run("ps", "-o", "user:20=", "-p", main_process(machine, "rouse-rpc-worker.service"))
    assert said.strip() == "rouse-expert"
    status = machine.run("systemctl", "show", "--value", "--property=StatusText", "rouse-rpc-worker.service")
    assert json.loads(status)["url"].startswith("http://127.0.0.1:50053")


def test_preflight_in_its_sandbox(machine: Booted, first: Outcome) -> None:
    assert first.code == 0
    machine.run("systemctl", "start", "rouse-preflight.service")
    report = json.loads(machine.run("cat", "/run/rouse/preflight/local.json"))
    assert len(report["machines"]) == 1
    assert "hub" in report["machines"][0]["roles"]
