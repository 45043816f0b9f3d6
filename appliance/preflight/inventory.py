"""From what is written on a command line to machines: by their names in the inventory, by address, or this one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from appliance.models.catalogue import Catalogue
from appliance.preflight.errors import TargetError
from appliance.preflight.run import Machine
from appliance.preflight.target import LOCAL, Target, is_direct, parse_direct
from appliance.preflight.wanted import wanted_of
from appliance.settings import Settings, load
from appliance.settings.deploy import DeploySettings
from appliance.settings.section import Role


@dataclass(frozen=True, slots=True)
class Inventory:
    """The settings' folder, and what is said beside it.

    Attributes:
        config_dir: folder with `hosts/`, `groups/` and, for this machine, `rouse.toml`.
        environ: environment variables, which are settings of this machine alone.
        hostname: this machine's file in `hosts/`.
        catalogue: tells what models need.
        roles: roles to judge by instead of those of the settings.
        key: private key for machines whose settings name none.
        known_hosts: trusted host keys, instead of the SSH client's.
        ssh_config: configuration of the SSH client, instead of the user's.
    """

    config_dir: Path
    environ: Mapping[str, str]
    hostname: str
    catalogue: Catalogue
    roles: tuple[Role, ...] | None = None
    key: Path | None = None
    known_hosts: Path | None = None
    ssh_config: Path | None = None

    def machine(self, text: str) -> Machine:
        """Return the machine that is meant.

        Raises:
            TargetError: none of this name.
            InvalidSettingsError: its settings are wrong.
        """
        if text == LOCAL:
            settings = load(self.config_dir, self.environ, self.hostname).settings
            return self._of(Target(LOCAL), settings, settings.node.roles)
        if is_direct(text):
            target = replace(parse_direct(text), key=self.key, known_hosts=self.known_hosts, ssh_config=self.ssh_config)
            return self._of(target, Settings(), None)
        if not (self.config_dir / "hosts" / f"{text}.toml").is_file():
            known = sorted(path.stem for path in self.config_dir.glob("hosts/*.toml"))
            there = f"; there are {', '.join(known)}" if known else ""
            raise TargetError(
                f"{text}: there is no {self.config_dir / 'hosts' / text}.toml{there}. Write user@{text} for a machine "
                f"without one, or {LOCAL} for this one"
            )
        # The first-boot file here is this machine's own, as the environment is.
        settings = load(self.config_dir, {}, text, first_boot=(Path("rouse.toml"), b"")).settings
        target = target_of(text, settings.deploy)
        target = replace(
            target,
            key=target.key or self.key,
            known_hosts=target.known_hosts or self.known_hosts,
            ssh_config=self.ssh_config,
        )
        return self._of(target, settings, settings.node.roles)

    def _of(self, target: Target, settings: Settings, roles: tuple[Role, ...] | None) -> Machine:
        return Machine(target, wanted_of(settings, self.catalogue, roles=self.roles or roles))


def target_of(name: str, deploy: DeploySettings) -> Target:
    """Return how a machine of the inventory is reached, which is how `rouse deploy` reaches it.

    Raises:
        TargetError: its name is no host name, and its settings have no address.
    """
    return Target(
        name=name,
        host=deploy.address or name,
        user=deploy.user,
        port=deploy.port,
        key=deploy.key_file,
        known_hosts=deploy.known_hosts,
        accept_new=deploy.host_key == "accept-new",
        connect_seconds=deploy.connect_timeout,
    )
