"""From a file on a stick to a machine."""

import json
import logging
import re
import stat
from pathlib import Path

import pytest

from appliance.firstboot.forget import forget_secrets
from appliance.firstboot.kept_secrets import PLACEHOLDER
from appliance.settings import load
from tests.unit.firstboot.conftest import GOOD, KEY, SECRET, Stick


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_good_file(stick: Stick) -> None:
    stick.write(GOOD)
    outcome = stick.start()
    assert outcome.status.state == "good"
    assert stick.has_no_errors()
    assert stick.at("etc/hostname").read_text() == "attic\n"
    assert str(stick.at("etc/localtime").readlink()) == "../usr/share/zoneinfo/Europe/Berlin"
    assert stick.at("etc/localtime").read_bytes() == b"TZif"
    assert stick.at("etc/locale.conf").read_text() == "LANG=de_DE.UTF-8\n"
    assert stick.at("etc/ssh/authorized_keys.d/admin").read_text() == f"{KEY}\n"
    assert "AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/authorized_keys.d/%u" in (
        stick.at("etc/ssh/sshd_config.d/10-rouse-first-boot.conf").read_text()
    )
    assert "Country=DE" in stick.at("etc/iwd/main.conf").read_text()
    wifi = stick.at("var/lib/iwd/=436166c3a92031.psk")
    assert f"Passphrase={SECRET}\n" in wifi.read_text()
    assert mode(wifi) == 0o600
    assert "Type=wlan\n[Network]\nDHCP=yes" in stick.at("etc/systemd/network/20-rouse-wifi.network").read_text()
    settings_file = stick.at("etc/rouse/rouse.toml")
    assert settings_file.read_text() == GOOD
    assert mode(settings_file) == 0o640
    assert load(stick.at("etc/rouse"), {}, "attic").settings.broker.username == "rouse"
    assert mode(stick.at("var/lib/rouse/first-boot")) == 0o700


def test_the_second_start_changes_nothing(stick: Stick) -> None:
    stick.write(GOOD)
    stick.start()
    before = {path: path.lstat().st_mtime_ns for path in stick.machine.root.rglob("*") if not path.is_dir()}
    assert stick.start().changed == ()
    after = {path: path.lstat().st_mtime_ns for path in stick.machine.root.rglob("*") if not path.is_dir()}
    assert after == before


def test_a_bad_file_changes_nothing_and_says_why(stick: Stick) -> None:
    stick.write(GOOD)
    stick.start()
    before = stick.everything()
    stick.write(GOOD.replace('"attic"', '"cellar"').replace("Europe/Berlin", "Berlin/Europe"))
    outcome = stick.start()
    assert outcome.changed == ()
    assert stick.everything() == before
    assert stick.errors is not None
    assert "rouse.toml, line 5, system.time_zone" in stick.errors
    assert 'time_zone = "Europe/Berlin"' in stick.errors
    assert "The machine runs on with the last file that was good." in stick.errors
    assert re.search(r"(?<!\r)\n", stick.errors) is None
    told = json.loads(stick.at("run/rouse/first-boot.json").read_bytes())
    assert (told["state"], told["kept"], told["problems"][0]["line"]) == ("bad", True, 5)
    stick.write(GOOD.replace('"attic"', '"cellar"'))
    assert set(stick.start().changed) == {"etc/hostname", "etc/rouse/rouse.toml"}
    assert stick.has_no_errors()
    assert stick.at("etc/hostname").read_text() == "cellar\n"


def test_a_bad_file_at_the_first_start(stick: Stick) -> None:
    stick.write("[node\nname = 'attic'")
    outcome = stick.start()
    assert outcome.status.state == "bad"
    assert not outcome.status.kept
    assert stick.errors is not None
    assert "rouse.toml, line 1, column 6\r\n   not valid TOML" in stick.errors
    assert "The machine runs without these settings." in stick.errors
    assert not stick.at("etc/rouse").exists()
    # It has a name of its own all the same.
    assert re.fullmatch(r"rouse-[0-9a-f]{6}\n", stick.at("etc/hostname").read_text())


def test_no_file(stick: Stick) -> None:
    outcome = stick.start()
    assert outcome.status.state == "none"
    assert outcome.changed == ("etc/hostname",)
    assert stick.start().changed == ()
    stick.write(GOOD)
    stick.start()
    (stick.folder / "rouse.toml").unlink()
    assert stick.start().changed == ()
    assert stick.at("etc/hostname").read_text() == "attic\n"


def test_what_is_no_longer_asked_for_goes(stick: Stick) -> None:
    stick.write(GOOD)
    stick.start()
    stick.write("[node]\nname = 'attic'\n")
    stick.start()
    for path in (
        "var/lib/iwd/=436166c3a92031.psk",
        "etc/systemd/network/20-rouse-wifi.network",
        "etc/ssh/authorized_keys.d/admin",
        "etc/locale.conf",
        "etc/localtime",
    ):
        assert not stick.at(path).is_symlink()
        assert not stick.at(path).exists(), path
    assert stick.at("etc/hostname").read_text() == "attic\n"


def test_what_iwd_adds_to_its_file_stays(stick: Stick) -> None:
    stick.write(GOOD)
    stick.start()
    wifi = stick.at("var/lib/iwd/=436166c3a92031.psk")
    learned = wifi.read_text().replace("[Security]", "[Security]\nPreSharedKey=0123")
    wifi.write_text(learned)
    assert stick.start().changed == ()
    assert wifi.read_text() == learned
    stick.write(GOOD.replace(SECRET, "a new passphrase"))
    stick.start()
    assert "Passphrase=a new passphrase" in wifi.read_text()
    assert "0123" not in wifi.read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe[\0n\0", "saved as UTF-16"),
        (b"{\\rtf1", "saved as RTF"),
        (b"PK\x03\x04", "saved as a document"),
        (b"x" * 300_000, "larger than"),
        (b"name = 'caf\xe9'", "not UTF-8"),
        ("[node]\nname = “attic”".encode(), "line 2"),
        (b"[network.static]\naddress = '10.0.0.2/24'\ngateway = '10.0.1.1'", "is not in the network 10.0.0.0/24"),
        (b"[network.wifi]\npsk = 'abcdefgh'", "required when the passphrase"),
        (b"[network.wifi]\nssid = 'a'\npsk = 'short'", "8 to 63 characters or 64 hexadecimal digits, found 5"),
        (b"[system]\ntime_zone = 'Europe/Atlantis'", "no time zone of that name"),
        (b"[system]\ntime_zone = 'berlin'", "did you mean Europe/Berlin?"),
        (b"[system]\ntime_zone = 'Europe/Berlen'", "did you mean Europe/Berlin?"),
        (b"[system]\ntime_zone = 'Europe/Paris'", "this system has no data of the time zone Europe/Paris"),
    ],
)
def test_mistakes(stick: Stick, content: bytes, said: str) -> None:
    stick.write(content)
    assert stick.start().status.state == "bad"
    assert stick.errors is not None
    assert said in stick.errors


def test_a_byte_order_mark_and_windows_line_endings_are_fine(stick: Stick) -> None:
    stick.write(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert stick.start().status.state == "good"
    assert load(stick.at("etc/rouse"), {}, "attic").settings.node.name == "attic"


@pytest.mark.parametrize("name", ["rouse.toml.txt", "rouse.txt"])
def test_a_name_that_an_editor_gave(stick: Stick, name: str) -> None:
    stick.write(GOOD, name)
    assert stick.start().status.state == "bad"
    assert stick.errors is not None
    assert f"the file is called {name}: rename it to rouse.toml" in stick.errors


PRIVATE = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAA\n-----END OPENSSH PRIVATE KEY-----\n"
)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (f"'''{PRIVATE}'''", "key 1 is a PRIVATE key"),
        (f"['''{PRIVATE}''']", "key 1 is a PRIVATE key"),
        (f"['{KEY}', '''{PRIVATE}''']", "key 2 is a PRIVATE key"),
        ("'PuTTY-User-Key-File-3: ssh-ed25519'", "key 1 is a PRIVATE key"),
        (f"['{KEY[:60]}']", "cut off or damaged"),
        ("['hello']", "does not begin with its type"),
        (f"['{KEY.replace('ssh-ed25519 ', 'ecdsa-sha2-nistp256 ')}']", "a key of another type"),
        ("['ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQ==']", "cut off or damaged"),
        ("['command=\"rm\" ssh-ed25519 AAAA']", "does not begin with its type"),
    ],
)
def test_keys_that_are_none(stick: Stick, keys: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    stick.write(f"[system]\nssh_keys = {keys}\n")
    assert stick.start().status.state == "bad"
    assert stick.errors is not None
    assert said in stick.errors
    told = stick.errors + stick.at("run/rouse/first-boot.json").read_text() + caplog.text
    assert "b3BlbnNzaC1rZXkt" not in told


def test_an_authorized_keys_file_in_one_string(stick: Stick) -> None:
    stick.write(f"[system]\nssh_keys = '''\n# mine\n{KEY}\n\n{KEY} second\n'''\n")
    assert stick.start().status.state == "good"
    assert stick.at("etc/ssh/authorized_keys.d/admin").read_text() == f"{KEY}\n{KEY} second\n"


def test_no_secret_is_told(stick: Stick, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stick.write(GOOD.replace("[broker]", "pskk = 'a very secret passphrase'\n[broker]").replace("DE", "de"))
    stick.start()
    assert stick.errors is not None
    told = stick.errors + stick.at("run/rouse/first-boot.json").read_text() + caplog.text
    assert "secret" not in told.replace("secrets", "")


def test_the_stick_forgets_its_secrets(stick: Stick) -> None:
    stick.write(GOOD.replace("\n", "\r\n"))
    stick.start()
    before = load(stick.at("etc/rouse"), {}, "attic").settings
    assert forget_secrets(stick.folder, stick.machine) == ("broker.password", "network.wifi.psk")
    left = (stick.folder / "rouse.toml").read_text()
    assert "secret" not in left
    assert left.count(PLACEHOLDER) == 2
    assert stick.start().status.state == "good"
    assert load(stick.at("etc/rouse"), {}, "attic").settings == before
    assert forget_secrets(stick.folder, stick.machine) == ()
    # A secret that is written anew counts, and the other one is still known.
    stick.write(left.replace(PLACEHOLDER, 'quo\\"ted \\\\ secret', 1))
    stick.start()
    after = load(stick.at("etc/rouse"), {}, "attic").settings
    assert after.network.wifi.psk is not None
    assert after.network.wifi.psk.get_secret_value() == 'quo"ted \\ secret'
    assert after.broker.password == before.broker.password
    assert forget_secrets(stick.folder, stick.machine) == ("network.wifi.psk",)
    stick.start()
    assert load(stick.at("etc/rouse"), {}, "attic").settings == after
    assert mode(stick.machine.kept) == 0o600


def test_a_stick_that_forgot_its_secrets_in_another_machine(stick: Stick) -> None:
    stick.write(f"[network.wifi]\nssid = 'a'\npsk = '{PLACEHOLDER}'\n")
    assert stick.start().status.state == "bad"
    assert stick.errors is not None
    assert "line 3, network.wifi.psk" in stick.errors
    assert "write it anew" in stick.errors


@pytest.mark.parametrize(
    ("network", "file", "holds"),
    [
        ("[network.static]\naddress='10.0.0.2/24'\ngateway='10.0.0.1'", "10-rouse-static.network",
         "Type=ether\n[Network]\nAddress=10.0.0.2/24\nGateway=10.0.0.1\nDNS=10.0.0.1\n"),
        ("[network.static]\naddress='10.0.0.2/24'\ninterface='enp3s0'\ndns=['9.9.9.9']", "10-rouse-static.network",
         "Name=enp3s0\n[Network]\nAddress=10.0.0.2/24\nDNS=9.9.9.9\n"),
        ("[network.wifi]\nssid='a'\n[network.static]\naddress='10.0.0.2/24'", "20-rouse-wifi.network",
         "Type=wlan\n[Network]\nAddress=10.0.0.2/24\n"),
        ("[network.static]\naddress='fd00::2/64'\ngateway='fd00::1'", "10-rouse-static.network",
         "Address=fd00::2/64\nGateway=fd00::1\n"),
    ],
)  # fmt: skip
def test_fixed_addresses(stick: Stick, network: str, file: str, holds: str) -> None:
    stick.write(network)
    assert stick.start().status.state == "good"
    assert holds in stick.at(f"etc/systemd/network/{file}").read_text()


@pytest.mark.parametrize(
    ("ssid", "psk", "file", "holds"),
    [
        ("plain net_1", "passphrase", "plain net_1.psk", "Passphrase=passphrase\n"),
        ("a/../../b", "passphrase", "=612f2e2e2f2e2e2f62.psk", "Passphrase=passphrase\n"),
        ("x", "0" * 64, "x.psk", f"PreSharedKey={'0' * 64}\n"),
        ("x", "  two spaces\\\\", "x.psk", "Passphrase=\\s\\stwo spaces\\\\\n"),
        ("x", None, "x.open", "AutoConnect=true\n"),
    ],
)
def test_wireless_networks(stick: Stick, ssid: str, psk: str | None, file: str, holds: str) -> None:
    stick.write(f'[network.wifi]\nssid = "{ssid}"\n' + (f'psk = "{psk}"\n' if psk is not None else ""))
    assert stick.start().status.state == "good"
    assert [path.name for path in stick.at("var/lib/iwd").iterdir()] == [file]
    assert holds in stick.at(f"var/lib/iwd/{file}").read_text()


_HASH = "$6$abcdefgh$HnTT6uxUdV1zYsyVxlIs4bY/ZwmNLTz9Pv/9Jg0pVvVRw8iKTGQzkYxZmHq4vXQpNHXvB7pnBPIPQiVQRlZRd1"
_SHADOW = "root:*:20000:0:99999:7:::\nadmin:!:20000:0:99999:7:::\nsshd:!*:20000::::::\n"


def _with_shadow(stick: Stick) -> Path:
    shadow = stick.at("etc/shadow")
    shadow.parent.mkdir(parents=True, exist_ok=True)
    shadow.write_text(_SHADOW)
    shadow.chmod(0o640)
    return shadow


def test_the_administrators_password(stick: Stick, caplog: pytest.LogCaptureFixture) -> None:
    shadow = _with_shadow(stick)
    stick.write(f'[system]\npassword_hash = "{_HASH}"\n')
    assert "etc/shadow" in stick.start().changed
    assert shadow.read_text() == _SHADOW.replace("admin:!:", f"admin:{_HASH}:")
    assert shadow.stat().st_mode & 0o777 == 0o640
    assert stick.start().changed == ()
    stick.write("")
    stick.start()
    assert _HASH in shadow.read_text()  # what is not asked for any more stays, so that nobody is locked out
    assert _HASH not in caplog.text


def test_a_password_that_a_deploy_left(stick: Stick) -> None:
    """A new version of the image has a new /etc/shadow, and the deploy has not run on it yet."""
    shadow = _with_shadow(stick)
    left = stick.at("etc/rouse/administrator.hash")
    left.parent.mkdir(parents=True)
    left.write_text(f"{_HASH}\n")
    assert "etc/shadow" in stick.start().changed
    assert f"admin:{_HASH}:" in shadow.read_text()
    other = _HASH.replace("abcdefgh", "ABCDEFGH")
    stick.write(f'[system]\npassword_hash = "{other}"\n')
    stick.start()
    assert f"admin:{other}:" in shadow.read_text()


def test_a_system_without_an_administrator(stick: Stick, caplog: pytest.LogCaptureFixture) -> None:
    shadow = _with_shadow(stick)
    shadow.write_text("root:*:20000:0:99999:7:::\n")
    stick.write(f'[system]\npassword_hash = "{_HASH}"\n')
    assert "etc/shadow" not in stick.start().changed
    assert "there is no user admin" in caplog.text
