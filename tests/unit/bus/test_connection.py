"""How others reach what listens on this machine, and what broker settings become."""

import socket
from pathlib import Path

import pytest
import trustme

from appliance.bus.connection import Connection, reachable
from appliance.bus.errors import BusConfigurationError
from appliance.settings.model import BrokerSettings

LOOPBACK = Connection("127.0.0.1", 1883)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8101/v1", "http://[::1]:8101/v1", "http://attic.lan:8101/v1"])
def test_an_address_that_means_something_stays(url: str) -> None:
    assert reachable(url, LOOPBACK) == url


def test_a_wildcard_becomes_the_address_that_faces_the_broker() -> None:
    assert reachable("http://0.0.0.0:8101/v1", LOOPBACK) == "http://127.0.0.1:8101/v1"
    assert reachable("http://[::]:8101/v1", LOOPBACK) == "http://127.0.0.1:8101/v1"


def test_without_a_route_to_the_broker_it_becomes_this_machines_name() -> None:
    nowhere = Connection("fe80::1%nosuchlink", 1883)
    assert reachable("http://0.0.0.0:8101/v1", nowhere) == f"http://{socket.gethostname()}:8101/v1"


def test_a_password_comes_from_the_first_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("  secret \nmore\n")
    connection = Connection.to_external(BrokerSettings(username="u", password_file=file), "mqtt://broker.lan")
    assert (connection.host, connection.port, connection.password) == ("broker.lan", 1883, "secret")
    assert "secret" not in repr(connection)


@pytest.mark.parametrize("text", [None, ""])
def test_a_password_file_that_is_of_no_use_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "password"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BusConfigurationError, match=r"broker settings: .*password"):
        Connection.to_external(BrokerSettings(password_file=file), "mqtt://broker.lan")


def test_the_own_listeners_certificate_is_the_only_one_that_is_trusted(tmp_path: Path) -> None:
    file = tmp_path / "cert.pem"
    trustme.CA().issue_cert("hub.house.example").cert_chain_pems[0].write_to_path(str(file))
    own = Connection.to_own_listener(host="127.0.0.1", port=1, username="u", password="p", certificate=file)
    assert own.tls is not None
    assert own.tls.cert_store_stats()["x509"] == 1
    file.write_text("no certificate")
    with pytest.raises(BusConfigurationError, match=r"broker\.listen_cert_file"):
        Connection.to_own_listener(host="127.0.0.1", port=1, username="u", password="p", certificate=file)
