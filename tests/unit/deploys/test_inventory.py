from pathlib import Path

import pytest

from appliance.settings import InvalidSettingsError
from pyinfra_deploys.errors import DeployError, TargetError
from pyinfra_deploys.inventory import Machine, all_machines, machines
from pyinfra_deploys.run import _inventory
from pyinfra_deploys.site import PARTS, chosen


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("hosts", "groups"):
        (tmp_path / name).mkdir()
    (tmp_path / "rouse.toml").write_text('[system]\ntime_zone = "Asia/Tokyo"\n')
    (tmp_path / "groups/all.toml").write_text('[system]\nlocale = "de_DE.UTF-8"\ntime_zone = "Europe/Berlin"\n')
    (tmp_path / "hosts/hub.toml").write_text('[node]\nroles = ["hub"]\n')
    (tmp_path / "hosts/attic.toml").write_text('[node]\nroles = ["expert"]\n[deploy]\nuser = "root"\n')
    return tmp_path


def found(folder: Path, *targets: str, called: str | None = None) -> tuple[Machine, ...]:
    return machines(folder, targets, environ={"ROUSE_LOG__LEVEL": "debug"}, hostname="hub", called=called)


def test_all_that_have_a_file(folder: Path) -> None:
    assert [machine.target for machine in found(folder)] == ["attic", "hub"]
    assert [machine.name for machine in all_machines(folder)] == ["attic", "hub"]


def test_first_boot_file_and_environment_are_this_machines_own(folder: Path) -> None:
    local, hub = found(folder, "@local", "hub")
    assert (local.settings.system.time_zone, local.settings.log.level) == ("Asia/Tokyo", "debug")
    assert (hub.settings.system.time_zone, hub.settings.log.level) == ("Europe/Berlin", "info")
    assert local.settings.node.roles == hub.settings.node.roles == ("hub",)


def test_folder_has_the_settings_of_whom_it_is_called(folder: Path) -> None:
    root = folder / "root"
    (root / "usr").mkdir(parents=True)
    (plain,) = found(folder, f"@chroot{root}")
    assert plain.is_chroot
    assert plain.settings.node.roles == ("hub", "expert")
    (attic,) = found(folder, f"@chroot{root}", called="attic")
    assert attic.settings.node.roles == ("expert",)
    with pytest.raises(TargetError, match=r"there is no .*/hosts/shed\.toml"):
        found(folder, f"@chroot{root}", called="shed")


@pytest.mark.parametrize("target", ["@chroot/", "@chroot//", "@chroot/usr/.."])
def test_this_machine_is_no_folder(folder: Path, target: str) -> None:
    with pytest.raises(TargetError, match="is this machine itself: use @local"):
        found(folder, target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("shed", r"there is no .*/hosts/shed\.toml \(there are: attic, hub\)"),
        ("@chroot/nowhere", "/nowhere is no root file system"),
        ("../secrets", "there is no"),
        ("@docker/x", "there is no"),
    ],
)
def test_no_such_machine(folder: Path, target: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        found(folder, target)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"hosts has no file NAME\.toml"):
        found(tmp_path)
    assert all_machines(tmp_path) == ()


def test_everything_wrong_is_said_at_once(folder: Path) -> None:
    (folder / "hosts/hub.toml").write_text("[node]\nroles = 5\n")
    (folder / "hosts/attic.toml").write_text("[noode]\n")
    with pytest.raises(InvalidSettingsError) as error:
        found(folder)
    assert [problem.key for problem in error.value.problems] == ["noode", "node.roles"]


def test_who_needs_sudo(folder: Path) -> None:
    (folder / "usr").mkdir()
    attic, hub, chroot = found(folder, "attic", "hub", f"@chroot{folder}")
    assert (attic.needs_sudo, hub.needs_sudo, chroot.needs_sudo) == (False, True, False)


def test_groups_are_roles(folder: Path) -> None:
    inventory = _inventory(found(folder), {}, {"hub": "secret"})
    assert [host.name for host in inventory.get_group("hub")] == ["hub"]
    assert [host.name for host in inventory.get_group("expert")] == ["attic"]
    hub = inventory.get_host("hub")
    assert (hub.data.ssh_user, hub.data.get("_sudo"), hub.data.sudo_password_given) == ("admin", True, "secret")


def test_parts_are_in_the_sites_order() -> None:
    assert [part.name for part in chosen(["firewall", "base"])] == ["base", "firewall"]
    assert chosen([]) == PARTS
    with pytest.raises(DeployError, match="no part 'frewall' "):
        chosen(["frewall"])


def test_names_of_parts_are_unique() -> None:
    names = [part.name for part in PARTS]
    assert len(set(names)) == len(names)
