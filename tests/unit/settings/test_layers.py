from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.settings import LoadedSettings, Settings, Source, load

type Load = Callable[..., LoadedSettings]
type Write = Callable[[str, str | bytes], Path]


def test_without_files_everything_is_default(loaded: Load) -> None:
    result = loaded()
    assert result.settings == Settings()
    assert set(result.sources.values()) == {Source("default")}
    assert "agents.home.title" in result.sources
    assert "experts" in result.sources


def test_a_missing_folder_is_no_error(tmp_path: Path) -> None:
    assert load(tmp_path / "none", {}, "attic").settings == Settings()


LAYERS = ["machine.toml", "groups/all.toml", "groups/old.toml", "groups/slow.toml", "hosts/attic.toml", "rouse.toml"]


@pytest.mark.parametrize("strongest", range(len(LAYERS)))
def test_a_stronger_file_wins(write: Write, loaded: Load, strongest: int) -> None:
    for index, name in enumerate(LAYERS):
        port = f"[gateway]\nport = {8000 + index}\n" if index <= strongest else ""
        write(name, port)
    result = loaded({"ROUSE_NODE__GROUPS": '["old", "slow"]'})
    assert result.settings.gateway.port == 8000 + strongest
    source = result.sources["gateway.port"]
    assert str(source).endswith(f"{LAYERS[strongest]}:2")


def test_the_environment_is_strongest(write: Write, loaded: Load) -> None:
    write("rouse.toml", "gateway.port = 1\ngateway.host = '::'")
    result = loaded({"ROUSE_GATEWAY__PORT": "2"})
    assert result.settings.gateway.port == 2
    assert result.settings.gateway.host == "::"
    assert result.sources["gateway.port"] == Source("environment", variable="ROUSE_GATEWAY__PORT")


def test_sources_name_layer_file_and_line(write: Write, loaded: Load, tmp_path: Path) -> None:
    write("groups/all.toml", "\n\nlog.level = 'debug'")
    write("hosts/attic.toml", "[node]\ntitle = 'Attic'")
    write("rouse.toml", "experts.small = {model = 'a', slots = 2}\n[agents.'home']\nexpert = 'small'")
    sources = loaded().sources
    assert sources["log.level"] == Source("group", tmp_path / "groups/all.toml", 3)
    assert sources["node.title"] == Source("host", tmp_path / "hosts/attic.toml", 2)
    assert sources["experts.small.slots"] == Source("first-boot", tmp_path / "rouse.toml", 1)
    assert sources["agents.home.expert"] == Source("first-boot", tmp_path / "rouse.toml", 3)
    assert sources["agents.home.title"] == Source("default")
    assert "experts" not in sources


def test_tables_merge_and_arrays_are_replaced(write: Write, loaded: Load) -> None:
    write("groups/all.toml", "[experts.small]\nmodel = 'a'\nslots = 2\n[node]\nroles = ['hub', 'voice']")
    write("rouse.toml", "[experts.small]\nslots = 3\n[experts.big]\nmodel = 'b'\n[node]\nroles = ['expert']")
    settings = loaded().settings
    assert settings.experts["small"].model == Path("a")
    assert settings.experts["small"].slots == 3
    assert settings.experts["big"].model == Path("b")
    assert settings.node.roles == ("expert",)


def test_default_agents_stay_beside_new_ones(write: Write, loaded: Load) -> None:
    write("rouse.toml", "[agents.kitchen]\ntitle = 'Kitchen'")
    settings = loaded().settings
    assert list(settings.agents) == ["home", "kitchen"]
    assert settings.agents["home"].title == "Home"


@pytest.mark.parametrize("where", ["hosts/attic.toml", "rouse.toml"])
def test_files_may_choose_groups(write: Write, loaded: Load, where: str) -> None:
    write(where, "node.groups = ['slow']")
    write("groups/slow.toml", "log.level = 'error'")
    assert loaded().settings.log.level == "error"


def test_a_group_named_all_is_read_once_and_first(write: Write, loaded: Load) -> None:
    write("groups/all.toml", "gateway.port = 1")
    write("groups/slow.toml", "gateway.port = 2")
    assert loaded({"ROUSE_NODE__GROUPS": '["slow", "all"]'}).settings.gateway.port == 2


@pytest.mark.parametrize("hostname", ["", "../attic", "a/b", ".", "cellar", "a\0b"])
def test_other_host_names_read_no_host_file(write: Write, loaded: Load, hostname: str) -> None:
    write("hosts/attic.toml", "gateway.port = 1")
    write("attic.toml", "gateway.port = 2")
    assert loaded(hostname=hostname).settings.gateway.port == 8100


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf[gateway]\nport = 5\n",
        b"[gateway]\r\nport = 5\r\n",
        b'\xef\xbb\xbf[node]\r\ntitle = """a\r\nb"""\r\n[gateway]\r\nport = 5',
    ],
)
def test_files_from_windows(write: Write, loaded: Load, content: bytes) -> None:
    write("rouse.toml", content)
    result = loaded()
    assert result.settings.gateway.port == 5
    assert result.sources["gateway.port"].line == content.count(b"\n", 0, content.index(b"port")) + 1


def test_settings_are_immutable(loaded: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        loaded().settings.gateway.port = 1
