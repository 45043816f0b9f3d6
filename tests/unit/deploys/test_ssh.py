from pathlib import Path
from typing import Any

import pytest

from appliance.settings import Settings
from pyinfra_deploys import ssh
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.generated import render
from pyinfra_deploys.ssh.algorithms import CHOSEN, SshAlgorithms, supported
from pyinfra_deploys.ssh.deploy import refuse_lockout

_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f you@laptop"
_HASH = "$6$abcdefgh$HnTT6uxUdV1zYsyVxlIs4bY/ZwmNLTz9Pv/9Jg0pVvVRw8iKTGQzkYxZmHq4vXQpNHXvB7pnBPIPQiVQRlZRd1"


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


def test_nobody_is_locked_out() -> None:
    refuse_lockout(settings(system={"ssh_keys": _KEY}))
    refuse_lockout(settings(system={"ssh_keys": _KEY, "password_hash": _HASH}, deploy={"user": "root"}))
    with pytest.raises(DeployError, match=r"system\.ssh_keys is empty"):
        refuse_lockout(settings())
    with pytest.raises(DeployError, match=r'set system\.password_hash, deploy, then set deploy\.user = "admin"'):
        refuse_lockout(settings(system={"ssh_keys": _KEY}, deploy={"user": "root"}))


def test_older_versions_get_what_they_know() -> None:
    known = SshAlgorithms().process(["KexAlgorithms curve25519-sha256", "KexAlgorithms diffie-hellman-group14-sha1"])
    assert supported(CHOSEN["KexAlgorithms"], known["KexAlgorithms"]) == ("curve25519-sha256",)
    assert supported(CHOSEN["MACs"], known["MACs"]) == CHOSEN["MACs"]
    assert supported(CHOSEN["MACs"], None) == CHOSEN["MACs"]


def test_template() -> None:
    template = Path(ssh.__file__).parent / "templates" / "sshd.conf.j2"
    text = render(template, port=2222, algorithms={"MACs": ("a", "b")})
    assert text.startswith("# Made by Rouse's deploy")
    assert "\nPort 2222\n" in text
    assert text.endswith("\nMACs a,b\n")


def test_template_without_a_value(tmp_path: Path) -> None:
    template = tmp_path / "x.j2"
    for text in ("{{ nothing }}", "{{ none }}", "{% if %}"):
        template.write_text(text)
        with pytest.raises(DeployError, match=r"x\.j2 can't be rendered"):
            render(template, none=None)
