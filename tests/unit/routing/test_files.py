import hashlib
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.routing import files
from appliance.routing.errors import RouterFilesError
from appliance.routing.files import MANIFEST, WEIGHTS, load, save
from appliance.routing.model import TrainedRouter
from tests.fuzzing import JSON
from tests.unit.routing.trained import router

KINDS = ("logistic", "neighbours", "factors")
TEXTS = ["Turn on the light", "What is 3 + 4?", ""]


def written(folder: Path, kind: str = "logistic", *, with_projection: bool = False) -> TrainedRouter:
    trained = router(kind, with_projection=with_projection)
    save(folder, trained, created="2026-11-23T12:00:00Z", about={"rows": 3})
    return trained


def replace_weights(folder: Path, data: bytes) -> None:
    """Put other weights there, with a manifest that agrees."""
    (folder / WEIGHTS).write_bytes(data)
    change_manifest(folder, weights_sha256=hashlib.sha256(data).hexdigest())


def change_manifest(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def arrays(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(folder / WEIGHTS) as found:
        return dict(found)


def packed(**members: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **members)  # type: ignore[arg-type]
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_projection", [False, True])
def test_read_as_written(tmp_path: Path, kind: str, *, with_projection: bool) -> None:
    trained = written(tmp_path / "v1", kind, with_projection=with_projection)
    again = load(tmp_path / "v1")
    assert (again.qualities(TEXTS) == trained.qualities(TEXTS)).all()
    assert again.choose(TEXTS[0], ["small", "big"]) == trained.choose(TEXTS[0], ["small", "big"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v1"]


def test_a_version_is_never_written_over(tmp_path: Path) -> None:
    written(tmp_path / "v1")
    with pytest.raises(RouterFilesError, match="exists already"):
        written(tmp_path / "v1")


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path("EXPLODED").write_text, ("x",))


def test_a_pickle_in_the_weights_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "v1"
    written(folder)
    good = arrays(folder)
    bomb = np.empty(2, object)
    bomb[:] = [Bomb(), Bomb()]
    replace_weights(folder, packed(coefficients=good["coefficients"], intercepts=bomb))
    with pytest.raises(RouterFilesError, match="intercepts"):
        load(folder)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("coefficients.npy", "intercepts.npy"):
            archive.writestr(name, pickle.dumps(Bomb()))
    replace_weights(folder, stream.getvalue())
    with pytest.raises(RouterFilesError, match=r"coefficients|magic"):
        load(folder)
    replace_weights(folder, pickle.dumps(Bomb()))
    with pytest.raises(RouterFilesError):
        load(folder)
    assert not (tmp_path / "EXPLODED").exists()


def test_a_size_that_is_only_claimed_takes_no_memory(tmp_path: Path) -> None:
    folder = tmp_path / "v1"
    written(folder)
    header = io.BytesIO()
    claimed = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 2)}
    np.lib.format.write_array_header_1_0(header, claimed)  # type: ignore[no-untyped-call]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("coefficients.npy", "intercepts.npy"):
            archive.writestr(name, header.getvalue())
    replace_weights(folder, stream.getvalue())
    with pytest.raises(RouterFilesError, match="does not go with"):
        load(folder)


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "v1"
    written(folder)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("coefficients.npy", "intercepts.npy"):
            archive.writestr(name, bytes(200_000))
    monkeypatch.setattr(files, "LARGEST_WEIGHTS", 100_000)
    replace_weights(folder, stream.getvalue())
    with pytest.raises(RouterFilesError, match="unpacks to more than"):
        load(folder)


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "text",
    [
        "{'descr': (\n",
        "(" * 3000,
        "{'descr': '<f4\0'}",
        "{'",
        '{"""',
        "{'descr': '\\N{x}'}",
        "{'descr': '<f4,,', 'fortran_order': False, 'shape': (256, 2), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (256L, 2L), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -1), }\n",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (), }\n",
        "{'descr': [('a', [])], 'fortran_order': False, 'shape': (256, 2), }\n",
    ],
)
def test_a_hostile_header_is_refused(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "v1"
    written(folder)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("coefficients.npy", header(text) + bytes(256 * 2 * 4))
        archive.writestr("intercepts.npy", b"")
    replace_weights(folder, stream.getvalue())
    with pytest.raises(RouterFilesError, match="coefficients"):
        load(folder)


COMPRESSIONS = [method for method in ("LZMA", "BZIP2", "ZSTANDARD") if hasattr(zipfile, f"ZIP_{method}")]


@pytest.mark.parametrize("method", COMPRESSIONS)
def test_only_stored_and_deflated_members_are_read(tmp_path: Path, method: str) -> None:
    folder = tmp_path / "v1"
    written(folder)
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(folder / WEIGHTS) as good,
        zipfile.ZipFile(stream, "w", getattr(zipfile, f"ZIP_{method}")) as archive,
    ):
        for name in good.namelist():
            archive.writestr(name, good.read(name))
    damaged = bytearray(stream.getvalue())
    for data in (bytes(damaged), bytes(damaged[:60] + bytes(40) + damaged[100:])):
        replace_weights(folder, data)
        with pytest.raises(RouterFilesError, match="stored or deflated"):
            load(folder)


def test_arrays_in_the_order_of_fortran(tmp_path: Path) -> None:
    folder = tmp_path / "v1"
    trained = written(folder)
    good = arrays(folder)
    replace_weights(folder, packed(**{**good, "coefficients": np.asfortranarray(good["coefficients"])}))
    assert (load(folder).qualities(TEXTS) == trained.qualities(TEXTS)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_projection", [False, True])
def test_no_numbers_that_are_read_overflow_in_a_decision(tmp_path: Path, kind: str, *, with_projection: bool) -> None:
    folder = tmp_path / "v1"
    written(folder, kind, with_projection=with_projection)
    good = arrays(folder)
    for size in (3e38, files.LARGEST_NUMBER):
        large = {name: np.full_like(array, 1 if name == "known" else size) for name, array in good.items()}
        replace_weights(folder, packed(**large))
        if size > files.LARGEST_NUMBER:
            with pytest.raises(RouterFilesError, match="beyond 1000000"):
                load(folder)
        else:
            assert np.isfinite(load(folder).qualities([*TEXTS, "x" * 500])).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coefficients": np.zeros((3, 2), np.float32)}, "expected the shape 256 x 2"),
        ({"intercepts": np.zeros(3, np.float32)}, "expected the shape 2"),
        ({"intercepts": np.zeros(2, np.float64)}, "type <f4"),
        ({"intercepts": np.array([0, np.nan], np.float32)}, "not finite"),
        ({"intercepts": np.array([0, np.inf], np.float32)}, "not finite"),
        ({"intercepts": np.zeros((0,), np.float32)}, "one or two dimensions"),
        ({"further": np.zeros(2, np.float32)}, "expected the arrays"),
    ],
)
def test_wrong_arrays(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = tmp_path / "v1"
    written(folder)
    replace_weights(folder, packed(**{**arrays(folder), **change}))
    with pytest.raises(RouterFilesError, match=message):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format"),
        ({"experts": ["big", "big"]}, "named twice"),
        ({"experts": ["big", "sm\x00all"]}, "experts"),
        ({"experts": ["big"]}, "2 costs for 1 experts"),
        ({"experts": []}, "experts"),
        ({"costs": [0.0, 2.0]}, "costs"),
        ({"cost_weight": "0.1"}, "cost_weight"),
        ({"head": "forest"}, "head"),
        ({"head": "factors"}, "expected the arrays"),
        ({"projected": True}, "expected the arrays"),
        ({"version": "../../etc"}, "version"),
        ({"featuriser": {"kind": "ngrams", "revision": 99, "signs": 0, "bits": 8, "longest": 480}}, "revision 99"),
        ({"featuriser": {"kind": "other", "revision": 1, "signs": 0, "bits": 8, "longest": 480}}, "featuriser"),
        ({"featuriser": {"kind": "ngrams", "revision": 1, "signs": 0, "bits": 60, "longest": 480}}, "featuriser"),
        ({"weights_sha256": "0" * 64}, "SHA-256"),
        ({"surprise": 1}, "surprise"),
        ({"cost_weight": float("nan")}, "NaN is not JSON"),
    ],
)
def test_wrong_manifest(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    written(tmp_path / "v1")
    change_manifest(tmp_path / "v1", **changes)
    with pytest.raises(RouterFilesError, match=message) as caught:
        load(tmp_path / "v1")
    assert "rouse router train" in str(caught.value)


@pytest.mark.parametrize("file", [MANIFEST, WEIGHTS])
def test_missing_or_no_file(tmp_path: Path, file: str) -> None:
    written(tmp_path / "v1")
    (tmp_path / "v1" / file).unlink()
    with pytest.raises(RouterFilesError, match="can't be read"):
        load(tmp_path / "v1")
    (tmp_path / "v1" / file).mkdir()
    with pytest.raises(RouterFilesError, match="can't be read"):
        load(tmp_path / "v1")


fuzz = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@fuzz
@given(st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_manifest_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    folder = tmp_path / "v1"
    if not folder.exists():
        written(folder)
    (folder / MANIFEST).write_bytes(data)
    with pytest.raises(RouterFilesError):
        load(folder)


@fuzz
@given(kind=st.sampled_from(KINDS), edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4),
       cut=st.integers(0, 64))  # fmt: skip
def test_damaged_weights_are_read_or_refused(tmp_path: Path, kind: str, edits: list[tuple[int, int]], cut: int) -> None:
    folder = tmp_path / kind
    if not folder.exists():
        written(folder, kind)
        (tmp_path / f"{kind}.good").write_bytes((folder / WEIGHTS).read_bytes())
    data = bytearray((tmp_path / f"{kind}.good").read_bytes())
    for place, value in edits:
        data[place % len(data)] = value
    replace_weights(folder, bytes(data[: len(data) - cut]))
    try:
        qualities = load(folder).qualities(TEXTS)
    except RouterFilesError:
        return
    assert np.isfinite(qualities).all()
