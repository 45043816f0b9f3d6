"""Where an expert listens."""

import errno
import socket
from urllib.parse import urlsplit

import pytest

from appliance.experts.server import running_expert
from appliance.experts.settings import EngineSettings
from appliance.settings.section import ports_of
from tests.unit.experts.conftest import KEY
from tests.unit.experts.fake_backend import FakeBackend

SETTINGS = EngineSettings()


def _taken() -> tuple[socket.socket, int]:
    """Return a port that somebody listens on, the next one of which is free."""
    for _ in range(50):
        listener = socket.create_server(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        try:
            socket.create_server(("127.0.0.1", port + 1)).close()
        except OSError:
            listener.close()
        else:
            return listener, port
    raise AssertionError("no two free ports side by side")


async def test_the_first_free_port_of_a_range_is_taken() -> None:
    listener, port = _taken()
    with listener:
        async with running_expert(
            name="tiny",
            backend=lambda: FakeBackend(SETTINGS),
            host="127.0.0.1",
            port=range(port, port + 2),
            api_key=KEY,
            settings=SETTINGS,
        ) as expert:
            await expert.scheduler.start()
            assert urlsplit(expert.url).port == port + 1


async def test_a_range_that_is_taken_is_an_error() -> None:
    listener, port = _taken()
    with listener, pytest.raises(OSError, match=str(port)) as caught:
        async with running_expert(
            name="tiny",
            backend=lambda: FakeBackend(SETTINGS),
            host="127.0.0.1",
            port=range(port, port + 1),
            api_key=KEY,
            settings=SETTINGS,
        ):
            pass
    assert caught.value.errno == errno.EADDRINUSE


def test_a_range_has_both_its_ends() -> None:
    assert list(ports_of("8110-8112")) == [8110, 8111, 8112]


@pytest.mark.parametrize("text", ["", "8110", "8112-8110", "0-5", "1-65536", "a-b", "-5-7", "1-2-3", "\u0661-\u0662"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected two ports"):
        ports_of(text)
