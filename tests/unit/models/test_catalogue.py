import copy
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.models.catalogue import Catalogue, HuggingFace, Pypi, load, read
from appliance.models.errors import CatalogueError, UnknownModelError
from appliance.models.record import RECORD_NAME, Record, read_records, write_records
from appliance.models.strict_yaml import parse

TEXT = Path(__file__).parents[3].joinpath("appliance/models/catalogue.yaml").read_bytes()


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load()


def test_ids_and_files_are_unique(catalogue: Catalogue) -> None:
    ids = [model.id for model in catalogue.models]
    names = [file.name.lower() for model in catalogue.models for file in model.files]
    assert len(set(ids)) == len(ids)
    assert len(set(names)) == len(names)


def test_every_licence_is_named_and_used(catalogue: Catalogue) -> None:
    assert {model.licence for model in catalogue.models} == set(catalogue.licences)
    assert all(licence.name and licence.url for licence in catalogue.licences.values())


def test_what_was_asked_for_is_there(catalogue: Catalogue) -> None:
    ids = {model.id for model in catalogue.models}
    assert ids >= {
        "lfm2-350m-math",
        "lfm2-350m-extract",
        "lfm2-1.2b-extract",
        "lfm2-1.2b-rag",
        "lfm2-1.2b-tool",
        "lfm2.5-1.2b-instruct",
        "lfm2.5-1.2b-thinking",
        "lfm2-2.6b",
        "qwen3-0.6b",
        "gemma-3-270m",
        "smollm2-135m-instruct",
        "smollm3-3b",
        "phi-4-mini-instruct",
        "gpt-oss-20b",
        "home-3b-v3",
    }


def test_sizes_are_plausible(catalogue: Catalogue) -> None:
    """A quantised weight takes between 3 and 17 bits; a typing error in a size falls outside."""
    for model in catalogue.models:
        size = model.weights.estimated_size
        assert size is not None, model.id
        if "vision" not in model.purposes:
            assert 3 < size * 8 / model.parameters < 17, model.id


def test_a_file_without_a_checksum_is_at_the_hub(catalogue: Catalogue) -> None:
    """The hub announces one; a package index does for its wheels only."""
    for model in catalogue.models:
        if any(file.sha256 is None for file in model.files):
            assert isinstance(model.source, HuggingFace)


def test_packaged_models(catalogue: Catalogue) -> None:
    assert {model.id for model in catalogue.models if isinstance(model.source, Pypi)} == {
        "gemma-3-270m",
        "smollm2-135m-instruct",
    }


def test_kv_bytes(catalogue: Catalogue) -> None:
    """Known figures: 23 kB a token for SmolLM2-135M, 12 for LFM2's six attention layers."""
    sizes = {model.id: model.architecture.kv_bytes_per_token for model in catalogue.models if model.architecture}
    assert sizes["smollm2-135m-instruct"] == 23_040
    assert sizes["lfm2-1.2b"] == 12_288


def test_an_unknown_model(catalogue: Catalogue) -> None:
    with pytest.raises(UnknownModelError, match="rouse model list"):
        catalogue.model("nonsense")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("id: lfm2-700m", "id: lfm2-350m", "lfm2-350m is there twice"),
        ("name: LFM2-700M-Q4_K_M.gguf", "name: ../../etc/passwd.gguf", "pattern"),
        ("name: LFM2-700M-Q4_K_M.gguf", "name: .hidden.gguf", "pattern"),
        ("name: LFM2-700M-Q4_K_M.gguf", 'name: "a.gguf\\n"', "pattern"),
        ("licence: MIT", "licence: WTFPL", "not among the licences"),
        ("size: 468624320", "size: -1", "greater than 0"),
        ("size: 468624320", "size: 468624320.5", "integer"),
        ("evidence: computed", "evidence: none", "evidence is none"),
        ("repo: LiquidAI/LFM2-700M-GGUF", "repo: ../x", "pattern"),
        ("purposes: [maths, reasoning]", "purposes: [cooking]", "Input should be"),
        ("member_size: 98362432", "member_size: 98362431", "fit the parts"),
        ("machine: gpu", "machine: gpu\n    colour: red", "Extra inputs"),
        ("machine: gpu", "machine: gpu\n    machine: gpu", "twice"),
        ("family: Phi\n", "family: &a Phi\n    notes: *a\n", "aliases"),
        ("family: Phi\n", "family: !!python/name:os.system\n", "constructor"),
        ("family: Phi\n", 'family: "\\e[31mred"\n', "pattern"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, says: str) -> None:
    text = TEXT.decode()
    assert old in text
    with pytest.raises(CatalogueError, match=says):
        read(text.replace(old, new).encode(), "mine.yaml")


def test_too_large_and_too_deep() -> None:
    with pytest.raises(CatalogueError, match="larger"):
        parse(b" " * (1 << 21))
    with pytest.raises(CatalogueError, match="deep"):
        parse(b"[" * 100_000)


@pytest.mark.parametrize("text", ["!!bool x", '!!int ""', "!!timestamp x", "!!float x", "2000-99-99", "? [1]", "\x00"])
def test_values_that_trip_the_parser(text: str) -> None:
    with pytest.raises(CatalogueError):
        read(text.encode(), "any")


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(CatalogueError):
        read(data, "any")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


_SHORT = yaml.safe_load(TEXT)
_SHORT["models"] = [model for model in _SHORT["models"] if model["id"] in {"lfm2-700m", "smollm2-135m-instruct"}]


@settings(deadline=None)  # the machine may be busy
@given(st.data())
def test_any_value_anywhere(data: st.DataObject) -> None:
    """One value of a good entry replaced by anything: refused, or still a catalogue with safe names."""
    document = copy.deepcopy(_SHORT)
    model = document["models"][data.draw(st.integers(0, 1))]
    target = data.draw(st.sampled_from([model, model["source"], model["files"][0], document["licences"], document]))
    target[data.draw(st.sampled_from(sorted(target)))] = data.draw(_VALUES)
    try:
        found = read(yaml.safe_dump(document, allow_unicode=True).encode(errors="surrogatepass"), "any")
    except CatalogueError:
        return
    for name in (file.name for model in found.models for file in model.files):
        assert "/" not in name
        assert not name.startswith(".")


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=300) | st.sampled_from([b"{}", b'{"version":1,"files":{}}']))
def test_any_record(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("record")
    (folder / RECORD_NAME).write_bytes(data)
    try:
        assert read_records(folder) == {}
    except CatalogueError as error:
        assert "is damaged" in str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize("name", ["../x.gguf", "/x.gguf", ".x.gguf", "x", "x.gguf/y"])
def test_a_record_names_only_files_of_the_folder(tmp_path: Path, name: str) -> None:
    record = Record(size=1, sha256="0" * 64, voucher="user", source="x")
    write_records(tmp_path, {"x.gguf": record})
    path = tmp_path / RECORD_NAME
    path.write_text(path.read_text().replace("x.gguf", name))
    with pytest.raises(CatalogueError):
        read_records(tmp_path)


def test_records_come_back(tmp_path: Path) -> None:
    record = Record(model="m", size=1, sha256="0" * 64, voucher="source", source="x", revision="abc")
    write_records(tmp_path, {"x.gguf": record})
    assert read_records(tmp_path) == {"x.gguf": record}
