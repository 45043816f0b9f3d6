"""Repositories on another machine: a real SSH server, and a server of the REST protocol."""

import getpass
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from scripts.house.processes import free_port
from tests.system.backup.conftest import House
from tests.system.backup.rest_server import rest_server

PASSWORD = "p@ss/word:1"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[int]:
    """An SSH server that gives files to whom has the key, on loopback."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("sshd is missing: scripts/packages openssh-server")
    folder = tmp_path / "sshd"
    folder.mkdir()
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    port = free_port()
    Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n"
        "Subsystem sftp internal-sftp\nLogLevel ERROR\n"
    )
    name = (folder / "host.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {name}\n")
    (folder / "unknown_hosts").write_text("")
    process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "config")])
    try:
        for _ in range(200):
            if subprocess.run(["ssh-keyscan", "-p", str(port), "127.0.0.1"], capture_output=True, check=False).stdout:
                break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait()


def test_over_ssh(house: House, sshd: int) -> None:
    folder = house.top / "sshd"
    url = f"sftp://{getpass.getuser()}@127.0.0.1:{sshd}/{house.repository}"
    keys = f'ssh_key_file = "{folder}/user"\nssh_known_hosts_file = "{folder}/known_hosts"'
    house.settings(url, keys)
    before = house.tree()
    made = json.loads(house.rouse("now", "--json").stdout)
    assert (house.repository / "config").exists()
    (house.state / "secrets" / "gateway.key").unlink()
    before["secrets/backup.password"] = house.tree()["secrets/backup.password"]
    house.settings(url, keys)
    house.rouse("restore", made["snapshot"], "--force")
    assert house.tree() == before

    house.settings(url, keys.replace('known_hosts"', 'unknown_hosts"'))
    refused = house.rouse("now", expect=1).stderr
    assert "Host key verification failed" in refused or "unable to start the sftp session" in refused
    house.settings(url, keys.replace('/user"', '/stranger"'))
    refused = house.rouse("now", expect=1).stderr
    # What ssh says itself reaches restic's output or does not: the two end at the same time.
    assert "Permission denied" in refused or "unable to start the sftp session" in refused


def test_to_a_rest_server(house: House) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    ca = house.top / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    secret = house.top / "rest.password"
    secret.write_text(PASSWORD + "\n")
    before = house.tree()
    with rest_server(house.repository, user="attic", password=PASSWORD, context=context) as port:
        url = f"rest:https://127.0.0.1:{port}/house/"
        log_in = f'rest_username = "attic"\nrest_password_file = "{secret}"\n'
        house.settings(url, log_in + f'ca_file = "{ca}"')
        made = json.loads(house.rouse("now", "--json").stdout)
        before["secrets/backup.password"] = house.tree()["secrets/backup.password"]
        house.rouse("verify", "--all")
        (house.state / "secrets" / "gateway.key").unlink()
        house.rouse("restore", made["snapshot"], "--force")
        assert house.tree() == before

        house.settings(url, log_in)
        unknown = house.rouse("now", expect=1)
        assert "certificate" in unknown.stderr
        secret.write_text("wrong\n")
        house.settings(url, log_in + f'ca_file = "{ca}"')
        refused = house.rouse("now", expect=1)
        assert "401" in refused.stderr
        for said in (unknown, refused):
            assert PASSWORD not in said.output
            assert "wrong" not in said.output
