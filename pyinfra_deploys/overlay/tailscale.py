"""Tailscale, from its own repository. Its control server and packages are out of the project's hands."""

from collections.abc import Generator
from pathlib import Path
from typing import override

from pydantic import SecretStr
from pyinfra import host
from pyinfra.api import FactBase, StringCommand, operation

from pyinfra_deploys import generated, packages, systemd
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.target import has_manager, is_chroot, is_image, machine, settings

_TEMPLATES = Path(__file__).parent / "templates"
_KEYRING = "/etc/apt/keyrings/tailscale.gpg"
_SOURCES = "/etc/apt/sources.list.d/tailscale.sources"


class Suite(FactBase[str]):
    """The code name of the machine's Debian."""

    @override
    def command(self) -> str:
        return '. /etc/os-release; echo "$VERSION_CODENAME"'


class JoinedTailscale(FactBase[bool]):
    """Whether the machine is in a tailnet."""

    @override
    def command(self) -> str:
        return "tailscale status --json 2>/dev/null | grep -m1 '\"BackendState\"' || true"

    @override
    def process(self, output: list[str]) -> bool:
        return bool(output) and "NeedsLogin" not in output[0] and "NoState" not in output[0]

    @override
    @staticmethod
    def default() -> bool:
        return False


@operation()
def joined(name_in_network: str, login_server: str | None, key: SecretStr) -> Generator[StringCommand]:
    """Join the tailnet with a key, which goes through standard input into a file that only root reads."""
    if host.get_fact(JoinedTailscale):
        return
    server = f" --login-server={login_server}" if login_server is not None else ""
    yield StringCommand(
        'umask 077; file=$(mktemp); trap \'rm -f "$file"\' EXIT; cat > "$file"; '
        f'tailscale up --auth-key=file:"$file" --hostname={name_in_network}{server}',
        _stdin=key.get_secret_value(),
    )


def deployed() -> None:
    """Have Tailscale installed, and joined where there is a key.

    Raises:
        DeployError: the repository's key or the file with the joining key is missing.
    """
    wanted = settings().overlay.tailscale
    if not is_image():
        if wanted.keyring is None:
            raise DeployError(
                "overlay.tailscale.keyring is not set: download the repository's signing key "
                f"({wanted.repository}, the file that ends in .noarmor.gpg), compare it with what Tailscale publishes, "
                "and name the file there"
            )
        generated.binary(_read(wanted.keyring, "overlay.tailscale.keyring"), _KEYRING)
        suite = host.get_fact(Suite)
        generated.template(
            _TEMPLATES / "tailscale.sources.j2", _SOURCES, repository=wanted.repository, suite=suite, keyring=_KEYRING
        )
    packages.installed("tailscale")
    systemd.enabled("tailscaled.service")
    if is_chroot():
        return
    systemd.running("tailscaled.service")
    if wanted.auth_key_file is not None and has_manager():
        lines = _read(wanted.auth_key_file, "overlay.tailscale.auth_key_file").decode(errors="replace").splitlines()
        key = SecretStr(lines[0].strip() if lines else "")
        name = machine().name.replace("_", "-")
        joined(name="Join the tailnet", name_in_network=name, login_server=wanted.login_server, key=key)


def _read(file: Path, setting: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DeployError(f"{setting}: {file} can't be read: {error.strerror}") from error
