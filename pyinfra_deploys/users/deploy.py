"""Converges users."""

from pathlib import Path

from pyinfra.api import deploy

from appliance.firstboot.password import LEFT_BY_DEPLOY
from appliance.firstboot.plan import ADMINISTRATOR
from pyinfra_deploys import generated
from pyinfra_deploys.target import is_image, settings
from pyinfra_deploys.users.names import SERVICE_USERS, SHARED_GROUPS
from pyinfra_deploys.users.operations import administrator, password, passwordless_sudo_removed, service_users

_TEMPLATES = Path(__file__).parent / "templates"
_SYSUSERS = "/etc/sysusers.d/50-rouse.conf"


@deploy("Users and sudo")
def users() -> None:
    """Have the services' users, and the administrator."""
    generated.template(
        _TEMPLATES / "sysusers.conf.j2",
        _SYSUSERS,
        groups=SHARED_GROUPS,
        users=SERVICE_USERS,
    )
    memberships = {user.name: user.groups for user in SERVICE_USERS}
    service_users(name="Make the services' users", memberships=memberships, table=_SYSUSERS)
    administrator(name=f"Make the user {ADMINISTRATOR}", user=ADMINISTRATOR)
    system = settings().system
    if system.ssh_keys:
        keys = "".join(f"{key}\n" for key in system.ssh_keys)
        generated.text(keys, f"/etc/ssh/authorized_keys.d/{ADMINISTRATOR}")
    if system.password_hash is not None:
        password(name="Set the administrator's password", user=ADMINISTRATOR, hashed=system.password_hash)
        if is_image():
            # The next version of the image has another /etc/shadow; first boot sets the password again from here.
            kept = f"{system.password_hash.get_secret_value()}\n"
            generated.text(kept, f"/{LEFT_BY_DEPLOY}", mode="600", secret=True)
    sudoers = "/etc/sudoers.d/50-rouse"
    check = "visudo -c -q -f {new}"
    generated.template(_TEMPLATES / "sudoers.j2", sudoers, mode="440", check=check, administrator=ADMINISTRATOR)
    passwordless_sudo_removed(name="Remove sudo without a password")
