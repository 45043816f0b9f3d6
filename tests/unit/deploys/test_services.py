"""What the deploys of Rouse itself make of settings, without a machine."""

from pathlib import Path

import pytest

from appliance.models import catalogue
from appliance.settings.model import Settings
from pyinfra_deploys.appliance.layout import folders
from pyinfra_deploys.broker.deploy import template_data
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.generated import render
from pyinfra_deploys.models.needed import needed

ANY = "::"
BROKER = Path("pyinfra_deploys/broker/templates/mosquitto.conf.j2").absolute()


def settings(**sections: object) -> Settings:
    return Settings.model_validate(sections)


def test_each_folder_once_and_those_above_first() -> None:
    for wanted in (settings(), settings(paths={"state": "/srv/rouse", "models": "/srv/models"})):
        paths = [folder.path for folder in folders(wanted)]
        assert len(paths) == len(set(paths))
        for number, path in enumerate(paths):
            assert not any(later == str(Path(path).parent) for later in paths[number:])


def test_no_service_owns_a_folder_that_others_are_in() -> None:
    found = {folder.path: folder for folder in folders(settings())}
    for path, folder in found.items():
        above = found.get(str(Path(path).parent))
        assert above is None or above.owner in {"root", folder.owner}


def test_the_broker_is_open_to_clients_only_when_asked_for() -> None:
    text = render(BROKER, **template_data(settings()))
    listeners = [line for line in text.splitlines() if line.startswith("listener ")]
    assert listeners == ["listener 1883 127.0.0.1", "listener 8883"]
    text = render(BROKER, **template_data(settings(broker={"listen_host": ANY, "nodes_host": "192.0.2.1"})))
    listeners = [line for line in text.splitlines() if line.startswith("listener ")]
    assert listeners == ["listener 1883 127.0.0.1", "listener 8883 192.0.2.1", "listener 8884 ::"]


def test_two_listeners_on_one_port_are_refused() -> None:
    with pytest.raises(DeployError, match="ports of their own"):
        template_data(settings(broker={"listen_port": 8883}))
    with pytest.raises(DeployError, match="ports of their own"):
        template_data(settings(broker={"listen_port": 0}))


def test_models_are_found_here_or_in_the_catalogue(tmp_path: Path) -> None:
    known = catalogue.load()
    weights = next(model for model in known.models if model.weights.size is not None)
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    wanted = settings(
        experts={
            "one": {"model": weights.weights.name},
            "same": {"model": weights.weights.name},
            "own": {"model": "own.gguf"},
            "elsewhere": {"model": "/srv/models/big.gguf"},
            "nowhere": {"model": "nobody-knows-it.gguf"},
        }
    )
    found = {one.name: one for one in needed(wanted, known, tmp_path)}
    assert set(found) == {weights.weights.name, "own.gguf", "nobody-knows-it.gguf"}
    assert (found[weights.weights.name].model, found[weights.weights.name].bytes) == (weights.id, weights.weights.size)
    assert (found["own.gguf"].here, found["own.gguf"].bytes) == (tmp_path / "own.gguf", 4)
    assert (found["nobody-knows-it.gguf"].model, found["nobody-knows-it.gguf"].here) == (None, None)
