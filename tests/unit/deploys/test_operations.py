"""What the operations would do, by arguments and facts."""

import hashlib
from typing import Any

import pytest
from pydantic import SecretStr
from pyinfra.facts.files import Directory, FileContents, Link

from pyinfra_deploys.base.operations import KernelHostName, Locales, host_name, locale_generated, time_zone
from pyinfra_deploys.errors import DeployError, MissingPackagesError
from pyinfra_deploys.file_operations import FileSeen, Seen, removed, written
from pyinfra_deploys.firewall.operations import TableLoaded, applied
from pyinfra_deploys.overlay.keys import private_key
from pyinfra_deploys.overlay.operations import networkd_enabled
from pyinfra_deploys.packages import InstalledPackages, installed, present
from pyinfra_deploys.ssh.operations import logged_in_again
from pyinfra_deploys.systemd import UnitFileState, UnitStatus, needs_start, started, unit_file
from pyinfra_deploys.users.operations import (
    Accounts,
    Groups,
    PasswordHash,
    PasswordlessSudo,
    administrator,
    password,
    passwordless_sudo_removed,
    service_users,
)
from tests.unit.deploys.known import KnownMachine, asked, commands

_FILE: dict[str, Any] = {
    "dest": "/etc/x.conf",
    "mode": "640",
    "owner": "root",
    "group": "rouse",
    "secret": False,
    "check": None,
}
_NEW = "new\n"
_DIGEST = hashlib.sha256(_NEW.encode()).hexdigest()


def write(found: Seen | None, *, folder: bool = True, **more: Any) -> list[str]:
    facts = {FileSeen: found, Directory: {"mode": 755} if folder else None, FileContents: ["old"]}
    return commands(KnownMachine(facts), written, content=_NEW, **(_FILE | more))


def test_new_file() -> None:
    assert write(None, folder=False) == [
        "mkdir -p -m 755 /etc",
        "upload /etc/x.conf: 'new\\n'",
        "chown root:rouse /etc/x.conf",
        "chmod 640 /etc/x.conf",
    ]


def test_file_that_is_as_it_should_be() -> None:
    assert write(Seen(_DIGEST, 0o640, "root", "rouse")) == []


def test_only_the_mode_differs() -> None:
    assert write(Seen(_DIGEST, 0o644, "root", "rouse")) == ["chown root:rouse /etc/x.conf", "chmod 640 /etc/x.conf"]


def test_only_the_content_differs() -> None:
    assert write(Seen("0", 0o640, "root", "rouse")) == ["upload /etc/x.conf: 'new\\n'"]


def test_nobody_sees_a_secret_on_its_way() -> None:
    assert write(Seen("0", 0o644, "root", "root")) == [
        "chmod 600 /etc/x.conf",
        "upload /etc/x.conf: 'new\\n'",
        "chown root:rouse /etc/x.conf",
        "chmod 640 /etc/x.conf",
    ]


def test_checked_file_is_moved_into_place_when_it_is_good() -> None:
    assert write(Seen("0", 0o640, "root", "rouse"), check="visudo -c -f {new}") == [
        "upload /etc/x.conf.new: 'new\\n'",
        "chown root:rouse /etc/x.conf.new",
        "chmod 640 /etc/x.conf.new",
        "visudo -c -f /etc/x.conf.new || { rm -f /etc/x.conf.new ; exit 1; }",
        "mv -f -T /etc/x.conf.new /etc/x.conf",
    ]


def test_what_is_no_file_is_left_alone() -> None:
    with pytest.raises(DeployError, match="no ordinary file"):
        write(Seen(None))


@pytest.mark.parametrize(("secret", "shown"), [(False, "-old\n+new\n"), (True, "which is secret")])
def test_difference(secret: bool, shown: str) -> None:  # noqa: FBT001 - a parameter
    machine = KnownMachine({FileSeen: Seen("0", 0o640, "root", "rouse"), FileContents: ["old"]})
    commands(machine, written, content=_NEW, **(_FILE | {"secret": secret}))
    difference = machine.connector_data["differences"]["operation"]
    assert shown in difference
    assert ("new" in difference) is not secret


def test_file_is_removed_only_where_it_is() -> None:
    assert commands(KnownMachine({FileSeen: None}), removed, path="/etc/x y") == []
    assert commands(KnownMachine({FileSeen: Seen("0")}), removed, path="/etc/x y") == ["rm -f '/etc/x y'"]


@pytest.mark.parametrize(
    ("found", "state", "expected"),
    [
        ("disabled", "enabled", ["systemctl --quiet enable x.service"]),
        ("masked", "enabled", ["systemctl --quiet unmask x.service", "systemctl --quiet enable x.service"]),
        ("enabled", "enabled", []),
        ("static", "enabled", []),
        ("enabled", "disabled", ["systemctl --quiet disable x.service"]),
        ("not-found", "disabled", []),
        ("masked", "disabled", []),
        ("enabled", "masked", ["systemctl --quiet mask x.service"]),
        ("masked", "masked", []),
        ("not-found", "enabled", ["systemctl --quiet enable x.service"]),
    ],
)
def test_unit_file(found: str, state: str, expected: list[str]) -> None:
    machine = KnownMachine({UnitFileState: found})
    assert commands(machine, unit_file, unit="x.service", state=state) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"ActiveState": "inactive", "ConditionTimestampMonotonic": "0"}, True),
        ({"ActiveState": "failed", "ConditionTimestampMonotonic": "9", "ConditionResult": "yes"}, True),
        ({"ActiveState": "active"}, False),
        ({"ActiveState": "activating"}, False),
        ({"ActiveState": "inactive", "ConditionTimestampMonotonic": "9", "ConditionResult": "no"}, False),
        (
            {
                "ActiveState": "inactive",
                "ConditionTimestampMonotonic": "9",
                "ConditionResult": "yes",
                "Type": "oneshot",
                "Result": "success",
            },
            False,
        ),
    ],
)
def test_needs_start(status: dict[str, str], expected: bool) -> None:  # noqa: FBT001 - a parameter
    assert needs_start(status) is expected


def test_facts_of_units_are_read_as_systemctl_prints_them() -> None:
    assert UnitFileState().process(["enabled"]) == "enabled"
    assert UnitStatus().process(["ActiveState=active", "Type=oneshot"]) == {"ActiveState": "active", "Type": "oneshot"}


def test_only_missing_packages_are_installed() -> None:
    machine = KnownMachine({InstalledPackages: frozenset({"sudo"})})
    update, install = commands(machine, present, names=("sudo", "nftables"))
    assert update.endswith("update")
    assert install.endswith("install -y --no-install-recommends nftables")
    assert commands(machine, present, names=("sudo",)) == []


def test_packages_of_an_image() -> None:
    machine = KnownMachine({Directory: {"mode": 755}, InstalledPackages: frozenset({"sudo"})})
    asked(machine, lambda: installed("sudo"))
    with pytest.raises(MissingPackagesError, match="the image lacks mosquitto, prometheus"):
        asked(machine, lambda: installed("sudo", "mosquitto", "prometheus"))


def test_package_facts() -> None:
    assert InstalledPackages().process(["sudo installed", "mosquitto config-files"]) == {"sudo"}


def test_service_users() -> None:
    memberships = {"rouse-hub": ("rouse",), "rouse-node": ("rouse",)}
    arguments = {"memberships": memberships, "table": "/etc/sysusers.d/50-rouse.conf"}
    accounts = {"rouse-hub": "/usr/sbin/nologin", "rouse-node": "/usr/sbin/nologin"}
    for facts, expected in (
        ({Accounts: {}, Groups: {}}, ["systemd-sysusers /etc/sysusers.d/50-rouse.conf"]),
        (
            {Accounts: accounts, Groups: {"rouse": frozenset({"rouse-hub"})}},
            ["systemd-sysusers /etc/sysusers.d/50-rouse.conf"],
        ),
        ({Accounts: accounts, Groups: {"rouse": frozenset(accounts)}}, []),
    ):
        assert commands(KnownMachine(facts), service_users, **arguments) == expected


def test_administrator() -> None:
    logs = {"adm": frozenset({"admin"}), "systemd-journal": frozenset({"admin"})}
    assert commands(KnownMachine({Accounts: {}, Groups: {}}), administrator, user="admin") == [
        "useradd --create-home --user-group --shell /bin/bash --password '*' admin",
        "usermod --append --groups adm,systemd-journal admin",
    ]
    taken = {"admin": frozenset[str](), **logs}
    assert commands(KnownMachine({Accounts: {}, Groups: taken}), administrator, user="admin") == [
        "useradd --create-home --gid admin --shell /bin/bash --password '*' admin"
    ]
    shut = KnownMachine({Accounts: {"admin": "/usr/sbin/nologin"}, Groups: logs})
    assert commands(shut, administrator, user="admin") == ["usermod --shell /bin/bash admin"]
    assert commands(KnownMachine({Accounts: {"admin": "/bin/zsh"}, Groups: logs}), administrator, user="admin") == []


def test_password_goes_by_standard_input() -> None:
    machine = KnownMachine({PasswordHash: "*"})
    hashed = SecretStr("$6$salt$hash")
    assert commands(machine, password, user="admin", hashed=hashed) == ["chpasswd --encrypted < admin:$6$salt$hash"]
    assert commands(KnownMachine({PasswordHash: "$6$salt$hash"}), password, user="admin", hashed=hashed) == []


def test_passwordless_sudo_stays_where_this_run_needs_it() -> None:
    facts = {PasswordlessSudo: ["/etc/sudoers.d/90-cloud"]}
    machine = KnownMachine(facts)
    assert commands(machine, passwordless_sudo_removed) == []
    machine.connector_data["sudo_password"] = "given"
    assert commands(machine, passwordless_sudo_removed) == [
        "mv -f /etc/sudoers.d/90-cloud /etc/sudoers.d/90-cloud.disabled"
    ]
    in_a_folder = KnownMachine(facts, target="@chroot/srv/root")
    assert len(commands(in_a_folder, passwordless_sudo_removed)) == 1


def test_main_file_of_sudo_is_left_to_people() -> None:
    machine = KnownMachine({PasswordlessSudo: ["/etc/sudoers"]}, target="@chroot/srv/root")
    assert commands(machine, passwordless_sudo_removed) == []


def test_time_zone() -> None:
    target = "../usr/share/zoneinfo/Asia/Tokyo"
    assert commands(KnownMachine({Link: {"link_target": target}}), time_zone, target=target) == []
    assert commands(KnownMachine({Link: None}), time_zone, target=target) == [
        "test -f /usr/share/zoneinfo/Asia/Tokyo",
        "ln -sfnT ../usr/share/zoneinfo/Asia/Tokyo /etc/localtime.new",
        "mv -fT /etc/localtime.new /etc/localtime",
    ]


def test_host_name() -> None:
    running = {Directory: {"mode": 755}, KernelHostName: "debian"}
    assert commands(KnownMachine(running), host_name, wanted="attic") == [
        "hostnamectl --static hostname attic",
        "hostname attic",
    ]
    assert commands(KnownMachine(running | {KernelHostName: "attic"}), host_name, wanted="attic") == []
    assert commands(KnownMachine({}, target="@chroot/srv/root"), host_name, wanted="attic") == []


def test_locale() -> None:
    machine = KnownMachine({Locales: frozenset({"C.utf8", "de_DE.utf8"})})
    assert commands(machine, locale_generated, wanted="de_DE.UTF-8") == []
    assert commands(machine, locale_generated, wanted="fr_FR.UTF-8") == [
        "grep -qx 'fr_FR.UTF-8 UTF-8' /etc/locale.gen || echo 'fr_FR.UTF-8 UTF-8' >> /etc/locale.gen",
        "locale-gen",
    ]


def test_private_key_is_made_once() -> None:
    (made,) = commands(KnownMachine({FileSeen: None}), private_key)
    assert made.startswith("umask 077; wg genkey > /etc/systemd/network/rouse-overlay.key.new")
    assert commands(KnownMachine({FileSeen: Seen("0")}), private_key) == []


def test_networkd_is_not_waited_for_where_another_program_does_the_rest() -> None:
    assert commands(KnownMachine({UnitFileState: "enabled"}), networkd_enabled) == []
    assert commands(KnownMachine({UnitFileState: "disabled"}), networkd_enabled) == [
        "systemctl --quiet enable systemd-networkd.service",
        "systemctl --quiet disable systemd-networkd-wait-online.service",
    ]


class _Done:
    """An operation that is over."""

    def __init__(self, *, changed: bool) -> None:
        self._changed = changed

    def is_complete(self) -> bool:
        return True

    def did_change(self) -> bool:
        return self._changed


def test_rules_are_on_trial_until_a_second_connection_works() -> None:
    rules = {"rules": "/etc/nftables.conf", "changed": [_Done(changed=True)]}
    keep, trial, load, again, good = commands(KnownMachine({TableLoaded: True}), applied, **rules)
    assert keep.endswith("> /run/rouse-firewall-before.nft")
    assert "sleep 30; [ ! -e /run/rouse-firewall-before.nft ] || nft -f /run/rouse-firewall-before.nft" in trial
    assert (load, again, good) == (
        "nft -f /etc/nftables.conf",
        "call log_in_again",
        "rm -f /run/rouse-firewall-before.nft",
    )
    assert commands(KnownMachine({TableLoaded: True}, target="@local"), applied, **rules) == [load]


def test_rules_that_are_loaded_stay() -> None:
    rules = {"rules": "/etc/nftables.conf", "changed": [_Done(changed=False)]}
    assert commands(KnownMachine({TableLoaded: True}), applied, **rules) == []
    assert len(commands(KnownMachine({TableLoaded: False}), applied, **rules)) == 5


def test_ssh_is_tried_only_after_a_change() -> None:
    again = {"dest": "/etc/ssh/sshd_config.d/05-rouse.conf"}
    assert commands(KnownMachine({}), logged_in_again, changed=[_Done(changed=False)], **again) == []
    assert commands(KnownMachine({}), logged_in_again, changed=[_Done(changed=True)], **again) == ["call log_in_again"]


@pytest.mark.parametrize(
    ("active", "changed", "expected"),
    [
        ("active", True, ["systemctl daemon-reload", "systemctl reload x.service"]),
        ("active", False, []),
        ("inactive", True, ["systemctl daemon-reload", "systemctl start x.service"]),
        ("inactive", False, ["systemctl start x.service"]),
    ],
)
def test_started(active: str, changed: bool, expected: list[str]) -> None:  # noqa: FBT001 - a parameter
    machine = KnownMachine({UnitStatus: {"ActiveState": active}})
    assert commands(machine, started, unit="x.service", changed=[_Done(changed=changed)], verb="reload") == expected
