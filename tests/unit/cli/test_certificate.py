"""`rouse certificate` on a hub's state folder."""

import json
import os
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli.app import app
from appliance.pairing.identity import NodeKey
from appliance.security.ca.authority import Authority, ca_folder
from appliance.security.ca.errors import RequestRefusedError
from appliance.security.ca.store import CaStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hub(tmp_path)


def hub(folder: Path, *more: str) -> Path:
    lines = ["[node]", 'name = "house"', 'roles = ["hub"]', "[paths]", f"state = {json.dumps(str(folder / 'state'))}"]
    (folder / "rouse.toml").write_text("\n".join([*lines, *more]) + "\n")
    return folder


def rouse(folder: Path, *arguments: str, typed: str = "") -> tuple[int, str]:
    """Return the exit code and what was written: on standard output, or on standard error where that is empty."""
    result = CliRunner().invoke(app, ["--config-dir", str(folder), "certificate", *arguments], input=typed)
    return result.exit_code, (result.stdout or result.stderr) if result.exit_code == 0 else result.output


def listed(folder: Path, *arguments: str) -> dict[str, Any]:
    code, output = rouse(folder, "list", "--json", *arguments)
    assert code == 0, output
    return dict(json.loads(output))


def join(folder: Path, name: str) -> int:
    """Give a node a certificate; return its number."""
    authority = Authority(CaStore(ca_folder(folder / "state")), house="house")
    key = NodeKey.open(folder / f"{name}.key")
    authority.sign(key.request_pem(name), name=name, roles=("expert",), days=90)
    return [one.serial for one in authority.issued() if one.name == name][-1]


def test_before_there_is_a_ca_it_says_what_to_do(folder: Path) -> None:
    for command in (["list"], ["revoke", "attic"], ["renew", "attic"], ["rotate-ca"]):
        code, output = rouse(folder, *command)
        assert code == 1
        assert "this hub has no CA yet: rouse certificate setup" in output
    assert not (folder / "state" / "hub" / "ca").exists()


def test_setup_twice_changes_nothing(folder: Path) -> None:
    assert rouse(folder, "setup")[0] == 0

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in (folder / "state").rglob("*") if path.is_file()}

    before = files()
    assert (folder / "state" / "secrets" / "hub" / "tls" / "hub.pem") in before
    assert rouse(folder, "setup")[0] == 0
    assert files() == before


def test_setup_fills_mosquittos_folder(tmp_path: Path) -> None:
    beside = tmp_path / "mosquitto"
    beside.mkdir(mode=0o750)
    hub(tmp_path, "[broker]", 'url = "mqtt://127.0.0.1"', f"mosquitto_folder = {json.dumps(str(beside))}")
    assert rouse(tmp_path, "setup")[0] == 0
    assert sorted(path.name for path in beside.iterdir()) == [
        "acl", "ca.pem", "changed", "crl.pem", "digest", "passwords", "server.key", "server.pem",
    ]  # fmt: skip
    for path in beside.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    (beside / "changed").unlink()
    assert rouse(tmp_path, "setup")[0] == 0
    assert not (beside / "changed").exists(), "mosquitto has read all of it"
    passwords = (beside / "passwords").read_text()
    assert [line.split(":")[0] for line in passwords.splitlines()] == ["rouse", "homeassistant"]
    secret = (tmp_path / "state" / "secrets" / "bus" / "broker-rouse.password").read_text().strip()
    assert secret not in passwords
    assert (beside / "acl").read_text().startswith("user rouse\ntopic readwrite rouse/#\n")


def test_who_has_a_certificate(folder: Path) -> None:
    rouse(folder, "setup")
    join(folder, "attic")
    join(folder, "attic")
    join(folder, "cellar")
    found = listed(folder)
    assert [(one["name"], one["kind"], one["state"]) for one in found["certificates"]] == [
        ("attic", "node", "valid"),
        ("cellar", "node", "valid"),
        ("rouse", "hub", "valid"),
    ]
    assert len(found["cas"]) == 1
    everything = listed(folder, "--all")["certificates"]
    assert [one["state"] for one in everything] == ["was renewed", "valid", "valid", "valid"]
    code, output = rouse(folder, "list")
    assert code == 0
    assert output.splitlines()[0].split() == ["Name", "Roles", "State", "Until", "CA", "Serial"]
    assert "signs; valid until" in output


def test_revoking(folder: Path) -> None:
    rouse(folder, "setup")
    join(folder, "attic")
    serial = join(folder, "cellar")
    code, output = rouse(folder, "revoke", "attic", typed="n\n")
    assert code == 1
    assert len(listed(folder)["certificates"]) == 3
    assert rouse(folder, "revoke", "attic", typed="y\n")[0] == 0
    assert [one["name"] for one in listed(folder)["certificates"]] == ["cellar", "rouse"]
    code, output = rouse(folder, "revoke", "attic", "--yes")
    assert code == 1
    assert "nobody called attic has a certificate that counts" in output
    assert rouse(folder, "revoke", f"{serial:x}"[:12], "--yes")[0] == 0
    assert [one["name"] for one in listed(folder)["certificates"]] == ["rouse"]
    own = listed(folder)["certificates"][0]["serial"]
    code, output = rouse(folder, "revoke", own, "--yes")
    assert code == 1
    assert "this is the hub's own" in output
    assert rouse(folder, "revoke", "rouse", "--yes")[0] == 1


def test_renewing(folder: Path) -> None:
    rouse(folder, "setup")
    join(folder, "attic")
    assert rouse(folder, "renew", "attic") == (0, "attic will renew its certificate as soon as it is online.\n")
    assert listed(folder)["certificates"][0]["state"] == "to be renewed"
    own = listed(folder)["certificates"][1]["serial"]
    assert rouse(folder, "renew", "hub")[0] == 0
    assert listed(folder)["certificates"][1]["serial"] != own
    code, output = rouse(folder, "renew", "cellar")
    assert code == 1
    assert "no node cellar has a certificate that counts" in output


def test_another_ca(folder: Path) -> None:
    rouse(folder, "setup")
    join(folder, "attic")
    code, output = rouse(folder, "rotate-ca")
    assert code == 0
    assert "The former one is trusted until" in output
    assert [ca["retires"] is None for ca in listed(folder)["cas"]] == [True, False]
    code, output = rouse(folder, "rotate-ca")
    assert code == 1
    assert "--at-once" in output
    assert rouse(folder, "rotate-ca", "--at-once", typed="n\n")[0] == 1
    assert rouse(folder, "rotate-ca", "--at-once", "--yes")[0] == 0
    found = listed(folder)
    assert len(found["cas"]) == 1
    assert found["certificates"] == []
    assert {one["state"] for one in listed(folder, "--all")["certificates"]} == {"of a former CA"}


def test_a_certificate_for_a_program(folder: Path, tmp_path: Path) -> None:
    rouse(folder, "setup")
    join(folder, "attic")
    out = tmp_path / "out"
    out.mkdir()
    assert rouse(folder, "issue", "prometheus", "--out", str(out), "--monitor")[0] == 0
    assert rouse(folder, "issue", "homeassistant", "--out", str(out))[0] == 0
    assert stat.S_IMODE((out / "prometheus.key").stat().st_mode) == 0o600
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in ("prometheus", "homeassistant"):
        context.load_cert_chain(out / f"{name}.pem", out / f"{name}.key")
    context.load_verify_locations(out / "ca.pem")
    kinds = {one["name"]: (one["kind"], one["roles"]) for one in listed(folder)["certificates"]}
    assert kinds["prometheus"] == ("client", ["monitor"])
    assert kinds["homeassistant"] == ("client", [])
    for taken in ("attic", "rouse", "hub", "No Name"):
        code, output = rouse(folder, "issue", taken, "--out", str(out))
        assert code == 1, taken
        assert "is a node's or reserved, or no name" in output
    with pytest.raises(RequestRefusedError, match="is the name of a client"):
        join(folder, "prometheus")
    assert rouse(folder, "revoke", "prometheus", "--yes")[0] == 0
    assert "prometheus" not in {one["name"] for one in listed(folder)["certificates"]}


def test_on_a_node_it_says_whose_business_it_is(tmp_path: Path) -> None:
    (tmp_path / "rouse.toml").write_text('[node]\nname = "attic"\nroles = ["expert"]\n')
    code, output = rouse(tmp_path, "list")
    assert code == 1
    assert "this machine is no hub" in output


def test_a_broken_ca_is_one_line(folder: Path) -> None:
    rouse(folder, "setup")
    (folder / "state" / "hub" / "ca" / "book.json").write_text("{}")
    code, output = rouse(folder, "list")
    assert code == 1
    assert "the CA can't be used" in output
    assert "Traceback" not in output


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_leaves_files_that_the_hubs_user_can_read(folder: Path) -> None:
    state = folder / "state"
    state.mkdir()
    os.chown(state, 65534, 65534)
    for part in (folder, *folder.parents):
        if part.stat().st_mode & 0o005 != 0o005 and part != Path("/"):
            part.chmod(part.stat().st_mode | 0o755)
    assert rouse(folder, "setup")[0] == 0
    assert rouse(folder, "rotate-ca")[0] == 0
    for path in state.rglob("*"):
        assert path.stat().st_uid == 65534, path
    assert os.geteuid() == 0
