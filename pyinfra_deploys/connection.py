"""How machines are reached: pyinfra's connectors, made safe.

pyinfra passes sudo's password in a command line of the remote machine, where everybody there can read it; here it goes
through standard input. It writes files in place, by way of a name in /tmp that can be guessed; here a file is staged
where nobody else can look, and put in place whole or not at all.
"""

import os
import secrets
from pathlib import Path
from typing import IO, Any, override

from paramiko import PasswordRequiredException, PKey, SSHException
from pyinfra.api import QuoteString, StringCommand
from pyinfra.api.exceptions import ConnectError
from pyinfra.api.host import Host
from pyinfra.api.util import get_file_io
from pyinfra.connectors import util as connectors_util
from pyinfra.connectors.chroot import ChrootConnector
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import CommandOutput, extract_control_arguments, make_unix_command_for_host

from appliance.settings.deploy import DeploySettings

# What sudo says when it wants a password: pyinfra would ask for one then, behind our display.
connectors_util.SUDO_PASSWORD_REQUIRED_LINES = ()  # type: ignore[assignment]

_PLACE = """
set -eu
umask 077
source=$1
dest=$(readlink -m -- "$2")
new=$(mktemp -- "$dest.XXXXXXXX")
trap 'rm -f -- "$new" "$source"' EXIT
cat -- "$source" > "$new"
if [ -e "$dest" ]; then
  chown --reference="$dest" -- "$new"
  chmod --reference="$dest" -- "$new"
fi
sync -- "$new"
mv -f -T -- "$new" "$dest"
"""
"""Put a file in place: a new one is root's alone until it is given its mode, and an old one keeps its own."""


_STAGING = "/var/tmp"  # noqa: S108 - mktemp makes a folder of our own there
"""On a disk: a model may be larger than the memory."""


def _placing(source: str, dest: str) -> StringCommand:
    return StringCommand("sh", "-c", QuoteString(_PLACE), "place", QuoteString(source), QuoteString(dest))


def _read(source: str | IO[Any]) -> bytes:
    with get_file_io(source) as file:
        content: bytes | str = file.read()
    return content.encode() if isinstance(content, str) else content


class _BySudo:
    """Becomes root by a password on standard input, where sudo asks for one."""

    host: Host

    def run_shell_command(self, command: StringCommand, **arguments: Any) -> tuple[bool, CommandOutput]:
        """Run a command; `_sudo` is done here."""
        sudo = arguments.pop("_sudo", False)
        user = arguments.pop("_sudo_user", None)
        for unused in ("_sudo_password", "_use_sudo_login", "_preserve_sudo_env"):
            arguments.pop(unused, None)
        parent: Any = super()
        if not sudo:
            plain: tuple[bool, CommandOutput] = parent.run_shell_command(command, **arguments)
            return plain
        shown = {name: arguments.pop(name, False) for name in ("print_output", "print_input")}
        control = extract_control_arguments(arguments)  # type: ignore[arg-type]
        inner = make_unix_command_for_host(self.host.state, self.host, command, **arguments)
        password = self.host.connector_data.get("sudo_password")
        bits: list[Any] = ["sudo", "-k", "-H"]
        bits += ["-n"] if password is None else ["-S", "-p", QuoteString("")]
        bits += [] if user is None else ["-u", QuoteString(user)]
        if password is not None:
            given = control.get("_stdin")
            control["_stdin"] = [password, *([given] if isinstance(given, str) else given or ())]
        done: tuple[bool, CommandOutput] = parent.run_shell_command(
            StringCommand(*bits, "--", inner), **shown, **control
        )
        return done

    def _find_password(self, given: str | None) -> None:
        """Find out whether sudo wants a password, and whether it takes ours.

        Raises:
            ConnectError: it wants one that we don't have.
        """
        self.host.connector_data["sudo_password"] = None
        ready, output = self.run_shell_command(StringCommand("true"), _sudo=True)
        if ready:
            return
        said = output.output.strip() or "sudo failed"
        if "password is required" not in said and "authentication is required" not in said:
            raise ConnectError(f"can't become root: {said}")
        if given is None:
            raise ConnectError("sudo asks for a password: set deploy.sudo_password_file or answer when asked for it")
        self.host.connector_data["sudo_password"] = given
        ready, output = self.run_shell_command(StringCommand("true"), _sudo=True)
        if not ready:
            self.host.connector_data["sudo_password"] = None
            raise ConnectError("sudo does not take the password, or the user may not use sudo")


class Ssh(_BySudo, SSHConnector):  # type: ignore[misc]
    """A machine over SSH."""

    @override
    def connect(self) -> None:
        known_hosts = self.host.data.get("ssh_known_hosts_file")
        if known_hosts is not None:
            Path(known_hosts).touch(mode=0o600)
        super().connect()
        if self.host.data.get("_sudo"):
            self._find_password(self.host.data.get("sudo_password_given"))
        made, output = self.run_shell_command(StringCommand("mktemp", "-d", "-p", _STAGING))
        if not made:
            raise ConnectError(f"can't make a folder for uploads: {output.output}")
        self.host.connector_data["staging"] = output.stdout_lines[-1]

    @override
    def disconnect(self) -> None:
        staging = self.host.connector_data.pop("staging", None)
        if staging is not None:
            try:
                self.run_shell_command(StringCommand("rm", "-rf", "--", QuoteString(staging)))
            except (OSError, SSHException, EOFError):
                self.host.log("the connection is gone; a folder for uploads stays in /var/tmp")
        super().disconnect()
        if self.client is not None:
            self.client.close()

    @override
    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        staged = f"{self.host.connector_data['staging']}/{secrets.token_hex(8)}"
        self._put_file(filename_or_io, staged)  # type: ignore[no-untyped-call]
        done, output = self.run_shell_command(_placing(staged, remote_filename), **arguments)
        if not done:
            raise OSError(output.output)
        return True


class Local(_BySudo, LocalConnector):  # type: ignore[misc]
    """This machine."""

    @override
    def connect(self) -> None:
        super().connect()
        if self.host.data.get("_sudo"):
            self._find_password(self.host.data.get("sudo_password_given"))

    @override
    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        staged = _staged(Path("/tmp"), _read(filename_or_io))  # noqa: S108 - a new name, and nobody else's file
        try:
            done, output = self.run_shell_command(_placing(str(staged), remote_filename), **arguments)
        finally:
            staged.unlink(missing_ok=True)
        if not done:
            raise OSError(output.output)
        return True


class Chroot(ChrootConnector):
    """A root file system in a folder, as root of this machine."""

    @override
    def put_file(
        self,
        filename_or_io: Any,
        remote_filename: str,
        remote_temp_filename: str | None = None,
        print_output: bool = False,
        print_input: bool = False,
        **arguments: Any,
    ) -> bool:
        folder = Path(self.host.connector_data["chroot_directory"])
        staged = _staged(folder / "tmp", _read(filename_or_io))
        try:
            inside = f"/{staged.relative_to(folder)}"
            done, output = self.run_shell_command(_placing(inside, remote_filename), **arguments)
        finally:
            staged.unlink(missing_ok=True)
        if not done:
            raise OSError(output.output)
        return True


def _staged(folder: Path, content: bytes) -> Path:
    path = folder / f"rouse-deploy-{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    return path


def ssh_data(name: str, settings: DeploySettings, *, sudo_password: str | None) -> dict[str, Any]:
    """Return what pyinfra's SSH connector wants to know."""
    data: dict[str, Any] = {
        "ssh_hostname": settings.address or name,
        "ssh_port": settings.port,
        "ssh_user": settings.user,
        "ssh_strict_host_key_checking": "yes" if settings.host_key == "known" else "accept-new",
        "ssh_paramiko_connect_kwargs": {
            "timeout": settings.connect_timeout,
            "banner_timeout": settings.connect_timeout,
            "auth_timeout": settings.connect_timeout,
        },
        "_sudo": settings.user != "root",
        "sudo_password_given": sudo_password,
    }
    if settings.known_hosts is not None:
        data["ssh_known_hosts_file"] = str(settings.known_hosts)
    if settings.key_file is not None and not _has_passphrase(settings.key_file):
        data["ssh_key"] = str(settings.key_file)
    return data


def _has_passphrase(key_file: Path) -> bool:
    """Whether a key can be used by the agent only: pyinfra would ask for its passphrase behind our display."""
    try:
        PKey.from_path(key_file)
    except PasswordRequiredException:
        return True
    except (SSHException, OSError, ValueError):
        return False  # the connection says what is wrong with it
    return False
