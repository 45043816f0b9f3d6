import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from appliance.settings import load
from appliance.settings.excerpt import PLACEHOLDER, for_experts
from appliance.settings.model import Settings

SETTINGS = {
    "node": {"name": "attic", "supervisor": "systemd"},
    "broker": {"url": "mqtt://broker.lan", "username": "rouse", "password": "secret-of-the-broker"},
    "gateway": {"externals": {"big": {"url": "http://192.0.2.1/v1", "key": "secret-of-the-server"}}},
    "network": {"wifi": {"ssid": "home", "psk": "secret-of-the-wifi"}},
    "experts": {"big-one": {"model": "big.gguf", "workers": ["10.77.0.2:50053"], "slots": 2}, "small": {"model": "m"}},
}


def test_experts_learn_no_secret(tmp_path: Path) -> None:
    settings = Settings.model_validate(SETTINGS)
    text = for_experts(settings)
    assert "secret-of" not in text
    (tmp_path / "rouse.toml").write_text(text)
    read = load(tmp_path, {}, "attic").settings
    assert read.experts == settings.experts
    assert (read.node, read.paths, read.log, read.rpc_worker) == (
        settings.node,
        settings.paths,
        settings.log,
        settings.rpc_worker,
    )
    assert read.broker.url == settings.broker.url
    assert read.broker.password is not None
    assert read.broker.password.get_secret_value() == PLACEHOLDER
    assert read.network == Settings().network


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_text_comes_back(name: str) -> None:
    settings = Settings.model_validate({"experts": {"small": {"model": f"/models/{name}"}}})
    read = tomllib.loads(for_experts(settings))
    assert Path(read["experts"]["small"]["model"]) == settings.experts["small"].model
