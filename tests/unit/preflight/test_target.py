"""What may be a host, and what the SSH client is told."""

from pathlib import Path

import pytest

from appliance.preflight.errors import TargetError
from appliance.preflight.target import Target, is_direct, parse_direct


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("admin@attic", "admin", "attic", None),
        ("admin@attic.lan:2222", "admin", "attic.lan", 2222),
        ("root@192.168.1.20", "root", "192.168.1.20", None),
        ("root@[fe80::1%eth0]:22", "root", "fe80::1%eth0", 22),
        ("root@[2001:db8::1]", "root", "2001:db8::1", None),
    ],
)
def test_addresses(text: str, user: str, host: str, port: int | None) -> None:
    found = parse_direct(text)
    assert (found.user, found.host, found.port) == (user, host, port)
    assert is_direct(text)
    assert found.reached == text


@pytest.mark.parametrize(
    "text",
    [
        "root@", "@attic", "root@attic:0", "root@attic:70000", "root@-oProxyCommand=touch", "-l@attic", "root@a b",
        "root@attic;reboot", "a@b@c", "root@[attic]x", "root@2001:db8::1", "root@$(x)", "ro ot@attic", "root@attic:",
    ],
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(TargetError):
        parse_direct(text)


def test_names_and_this_machine_are_not_addresses() -> None:
    assert not is_direct("attic")
    assert not is_direct("@local")
    assert Target("@local").command == ("/bin/sh", "-s")


def test_the_client_is_told_to_ask_nothing_and_to_lend_nothing() -> None:
    command = Target("attic", "attic.lan", "admin", 2222, key=Path("/keys/id 100%")).command
    assert command[0] == "ssh"
    assert command[-3:] == ("--", "attic.lan", "/bin/sh -s")
    options = {command[index + 1] for index, part in enumerate(command) if part == "-o"}
    assert {
        "BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes",
        "ControlPath=none", "UpdateHostKeys=no", "ConnectTimeout=10", 'IdentityFile="/keys/id 100%%"',
    } <= options  # fmt: skip
    assert "2222" in command
    assert "admin" in command


def test_a_path_that_the_client_would_misread() -> None:
    with pytest.raises(TargetError, match="takes no such path"):
        _ = Target("attic", "attic", key=Path('/a"b')).command
