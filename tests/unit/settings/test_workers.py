"""A worker may listen where only the house's own machines are."""

import pytest
from pydantic import ValidationError

from appliance.settings.model import ExpertSettings, RpcWorkerSettings


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"host": "127.0.0.2"},
        {"host": "10.77.0.2", "overlay": ["10.77.0.0/24"]},
        {"host": "100.100.1.2", "overlay": ["10.77.0.0/24", "100.64.0.0/10"]},
    ],
)
def test_loopback_and_overlays_are_allowed(values: dict[str, object]) -> None:
    assert RpcWorkerSettings.model_validate(values).rpc_port == 50052


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"host": "0.0.0.0"}, "must be loopback or in one of the networks of overlay"),  # noqa: S104  # it is refused
        ({"host": "0.0.0.0", "overlay": ["10.0.0.0/8"]}, "must be loopback"),  # noqa: S104  # it is refused
        ({"host": "192.168.1.5"}, "must be loopback"),
        ({"host": "8.8.8.8", "overlay": ["10.0.0.0/8"]}, "must be loopback"),
        ({"host": "::"}, "expected an IPv4 address"),
        ({"host": "localhost"}, "expected an IPv4 address"),
        ({"host": "8.8.8.8", "overlay": ["8.8.8.0/24"]}, "is not a private network"),
        ({"host": "8.8.8.8", "overlay": ["0.0.0.0/0"]}, "is not a private network"),
        ({"overlay": ["10.0.0.1/8"]}, "expected an IPv4 network"),
        ({"overlay": ["home"]}, "expected an IPv4 network"),
        ({"port": 50052}, "port and rpc_port must differ"),
        ({"rpc_port": 0}, "greater than or equal to 1"),
    ],
)
def test_other_addresses_are_refused(values: dict[str, object], error: str) -> None:
    with pytest.raises(ValidationError, match=error):
        RpcWorkerSettings.model_validate(values)


def test_an_experts_workers_have_addresses() -> None:
    workers = ("127.0.0.1:1", "10.77.0.2:65535")
    assert ExpertSettings.model_validate({"model": "m", "workers": workers}).workers == workers
    for wrong in (
        "",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:1x",
        "worker:1",
        "[::1]:1",
        ":1",
    ):
        with pytest.raises(ValidationError, match="expected address:port"):
            ExpertSettings.model_validate({"model": "m", "workers": [wrong]})
    with pytest.raises(ValidationError, match="set worker_layers instead"):
        ExpertSettings.model_validate({"model": "m", "workers": workers, "gpu_layers": 3})
