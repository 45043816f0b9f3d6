"""Converges the SSH server."""

from pathlib import Path

from pyinfra import host
from pyinfra.api import deploy

from appliance.firstboot.plan import ADMINISTRATOR
from appliance.settings import Settings
from pyinfra_deploys import generated, systemd
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.ssh.algorithms import CHOSEN, SshAlgorithms, supported
from pyinfra_deploys.ssh.operations import logged_in_again
from pyinfra_deploys.target import is_chroot, is_remote, settings

_TEMPLATES = Path(__file__).parent / "templates"
_DEST = "/etc/ssh/sshd_config.d/05-rouse.conf"
# A server that has no host keys yet can't check its configuration, and one that was never started has no folder.
_CHECK = (
    "(mkdir -p /run/sshd; folder=$(mktemp -d); ssh-keygen -q -t ed25519 -N '' -f $folder/key && "
    "sshd -t -f {new} -h $folder/key; result=$?; rm -rf $folder; exit $result)"
)


@deploy("SSH")
def ssh() -> None:
    """Have the SSH server take keys only.

    Raises:
        DeployError: nobody could log in afterwards.
    """
    wanted = settings()
    if is_remote():
        refuse_lockout(wanted)
    known = host.get_fact(SshAlgorithms)
    algorithms = {name: supported(choice, known.get(name)) for name, choice in CHOSEN.items()}
    written = generated.template(
        _TEMPLATES / "sshd.conf.j2", _DEST, check=_CHECK, port=wanted.deploy.port, algorithms=algorithms
    )
    if not is_chroot():
        systemd.enabled("ssh.service")
    systemd.running("ssh.service", changed=[written], verb="reload")
    if is_remote():
        logged_in_again(name="Log in a second time", changed=[written], dest=_DEST)


def refuse_lockout(wanted: Settings) -> None:
    """Make sure that somebody can log in and become root after the change.

    Raises:
        DeployError: nobody could.
    """
    if not wanted.system.ssh_keys:
        raise DeployError(
            "system.ssh_keys is empty: after this, nobody could be sure to log in. Put your public key there"
        )
    if wanted.deploy.user == "root" and wanted.system.password_hash is None:
        raise DeployError(
            f"root may not log in after this, and {ADMINISTRATOR} has no password for sudo: set system.password_hash, "
            f'deploy, then set deploy.user = "{ADMINISTRATOR}"'
        )
