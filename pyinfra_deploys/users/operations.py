"""Operations on users."""

from collections.abc import Generator, Mapping, Sequence
from typing import override

from pydantic import SecretStr
from pyinfra import host, logger
from pyinfra.api import FactBase, QuoteString, StringCommand, operation

from pyinfra_deploys.target import machine

_NO_SHELLS = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false")
_LOG_GROUPS = "adm,systemd-journal"
_DISABLED = ".disabled"
"""sudo does not read files in sudoers.d that have a dot in their names."""


class Accounts(FactBase[Mapping[str, str]]):
    """Every user's login shell."""

    @override
    def command(self) -> str:
        return "getent passwd"

    @override
    def process(self, output: list[str]) -> dict[str, str]:
        return {fields[0]: fields[6] for line in output if len(fields := line.split(":")) == 7}

    @override
    @staticmethod
    def default() -> Mapping[str, str]:
        return {}


class Groups(FactBase[Mapping[str, frozenset[str]]]):
    """Every group's members."""

    @override
    def command(self) -> str:
        return "getent group"

    @override
    def process(self, output: list[str]) -> dict[str, frozenset[str]]:
        found = [line.split(":") for line in output]
        return {fields[0]: frozenset(filter(None, fields[3].split(","))) for fields in found if len(fields) == 4}

    @override
    @staticmethod
    def default() -> Mapping[str, frozenset[str]]:
        return {}


class PasswordHash(FactBase[str]):
    """A user's password, as the machine keeps it."""

    @override
    def command(self, user: str) -> str:
        return f"getent shadow {user} | cut -d: -f2"

    @override
    @staticmethod
    def default() -> str:
        return ""


class PasswordlessSudo(FactBase[Sequence[str]]):
    """Files that let somebody become root without a password."""

    @override
    def command(self) -> str:
        # A name with a dot or a tilde is not read by sudo.
        return (
            "for file in /etc/sudoers /etc/sudoers.d/*; do "
            'case "${file#/etc/sudoers.d/}" in *.*|*~) continue;; esac; '
            'if [ -f "$file" ] && grep -qE \'^[^#]*(NOPASSWD|!authenticate)\' "$file"; then echo "$file"; fi; done'
        )

    @override
    def process(self, output: list[str]) -> list[str]:
        return output

    @override
    @staticmethod
    def default() -> Sequence[str]:
        return ()


@operation()
def service_users(memberships: Mapping[str, Sequence[str]], table: str) -> Generator[StringCommand]:
    """Have the users of a sysusers.d table, each in its groups."""
    accounts, groups = host.get_fact(Accounts), host.get_fact(Groups)
    wanted = [(user, group) for user, of_user in memberships.items() for group in of_user]
    if memberships.keys() - accounts.keys() or any(user not in groups.get(group, ()) for user, group in wanted):
        yield StringCommand("systemd-sysusers", table)


@operation()
def administrator(user: str) -> Generator[StringCommand]:
    """Have a person's account, without a password at first: it opens by SSH keys only."""
    accounts, groups = host.get_fact(Accounts), host.get_fact(Groups)
    if user not in accounts:
        own = ["--gid", user] if user in groups else ["--user-group"]
        yield StringCommand("useradd", "--create-home", *own, "--shell", "/bin/bash", "--password", "'*'", user)
    elif accounts[user] in _NO_SHELLS:
        yield StringCommand("usermod", "--shell", "/bin/bash", user)
    if any(user not in groups.get(group, frozenset()) for group in _LOG_GROUPS.split(",")):
        yield StringCommand("usermod", "--append", "--groups", _LOG_GROUPS, user)


@operation()
def password(user: str, hashed: SecretStr) -> Generator[StringCommand]:
    """Have a user's password."""
    if host.get_fact(PasswordHash, user=user) != hashed.get_secret_value():
        yield StringCommand("chpasswd", "--encrypted", _stdin=f"{user}:{hashed.get_secret_value()}")


@operation()
def passwordless_sudo_removed() -> Generator[StringCommand]:
    """Have nobody become root without a password, unless this very run depends on it."""
    found = host.get_fact(PasswordlessSudo)
    if not found:
        return
    depends = machine().needs_sudo and host.connector_data.get("sudo_password") is None
    if depends or "/etc/sudoers" in found:
        why = "this run needs it itself: log in as admin next time" if depends else "it is for you to change"
        logger.warning("%s: sudo without a password stays in %s, because %s", host.name, ", ".join(found), why)
        return
    for file in found:
        yield StringCommand("mv", "-f", QuoteString(file), QuoteString(file + _DISABLED))
