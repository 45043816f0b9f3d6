import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from appliance.experts.prefixes.images import Image
from appliance.experts.prefixes.store import MAC_BYTES, PrefixStore

DATA = bytes(range(256)) * 4


def opened(folder: Path, *, state: str = "model a", capacity: int = 1 << 20, divisible: bool = True) -> PrefixStore:
    return PrefixStore(folder, state=state, capacity=capacity, divisible=divisible)


def image(*tokens: int, data: bytes = DATA) -> Image:
    return Image(tokens, 0, memoryview(data))


def loaded(store: PrefixStore, tokens: list[int]) -> Image | None:
    """Read the best file for some tokens."""
    stored, _ = store.best(tokens, len(tokens))
    assert stored is not None
    arrived: list[Image | None] = []
    store.load(stored, arrived.append)
    store._thread.submit(lambda: None).result(10)
    return arrived[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def test_what_was_put_is_there_for_the_next_process(folder: Path) -> None:
    store = opened(folder)
    store.put(image(1, 2, 3), "home")
    store.close()
    again = opened(folder)
    assert again.holds([1, 2])
    assert not again.holds([1, 3])
    found = loaded(again, [1, 2, 9])
    assert found is not None
    assert (found.tokens, bytes(found.data)) == ((1, 2, 3), DATA)
    assert {path.stat().st_mode & 0o777 for path in folder.glob("key")} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    again.close()


def test_the_least_recently_used_goes_when_there_is_no_room(folder: Path) -> None:
    store = opened(folder, capacity=3 * 1500)
    for token in (1, 2, 3):
        store.put(image(token)).result(10)
    assert store.count == 3
    assert loaded(store, [1]) is not None
    store.put(image(4)).result(10)
    assert [stored.tokens for stored in store.recent()] == [(4,), (1,), (3,)]
    assert sorted(path.stat().st_size for path in folder.glob("*.prefix")) == sorted(
        stored.size for stored in store.recent()
    )
    store.put(image(5, data=bytes(10_000))).result(10)
    assert store.count == 3
    store.close()


def test_a_longer_one_and_one_of_the_same_name_replace(folder: Path) -> None:
    store = opened(folder)
    store.put(image(1, 2)).result(10)
    store.put(image(1, 2, 3)).result(10)
    store.put(image(7), "home").result(10)
    store.put(image(8), "home").result(10)
    assert {stored.tokens for stored in store.recent()} == {(1, 2, 3), (8,)}
    store.close()
    states = opened(folder, divisible=False)
    states.put(image(1, 2, 3, 4)).result(10)
    assert {stored.tokens for stored in states.recent()} == {(1, 2, 3), (8,), (1, 2, 3, 4)}
    assert states.best([1, 2, 9], 3) == (None, 0)
    states.close()


def test_a_file_of_another_model_is_removed(folder: Path) -> None:
    store = opened(folder)
    store.put(image(1)).result(10)
    store.close()
    other = opened(folder, state="model b")
    assert (other.count, other.refused) == (0, 1)
    assert not list(folder.glob("*.prefix"))
    other.close()


def test_a_file_written_with_another_key_is_refused(folder: Path, tmp_path: Path) -> None:
    for place in (folder, tmp_path / "foreign"):
        store = opened(place)
        store.put(image(1, 2)).result(10)
        store.close()
    (path,) = folder.glob("*.prefix")
    (foreign,) = (tmp_path / "foreign").glob("*.prefix")
    path.write_bytes(foreign.read_bytes())
    store = opened(folder)
    assert loaded(store, [1, 2]) is None
    assert (store.refused, store.count) == (1, 0)
    assert not path.exists()
    store.close()


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damaged_file_is_ever_loaded(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    store = opened(folder)
    store.put(image(1, 2, 3)).result(10)
    store.close()
    (path,) = folder.glob("*.prefix")
    content = bytearray(path.read_bytes())
    damage = data.draw(st.sampled_from(["flip", "cut", "grow", "insert", "noise"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if damage == "flip":
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    elif damage == "cut":
        del content[at:]
    elif damage == "grow":
        content += data.draw(st.binary(min_size=1, max_size=64))
    elif damage == "insert":
        content[at:at] = data.draw(st.binary(min_size=1, max_size=64))
    else:
        content = bytearray(data.draw(st.binary(max_size=2 * MAC_BYTES)))
    path.write_bytes(content)
    store = opened(folder)
    for stored in store.recent():
        assert loaded(store, list(stored.tokens)) is None
    assert store.refused == 1
    assert not path.exists()
    store.close()


def test_a_full_disk_costs_the_prefix_and_nothing_else(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = opened(folder)
    store.put(image(1)).result(10)
    # A folder where the temporary file should be makes the write fail, as a full disk does.
    for path in folder.glob("*.prefix"):
        path.with_suffix(".tmp").mkdir()
    store.put(image(1)).result(10)
    assert "can't be kept on disk" in caplog.text
    store.put(image(2)).result(10)
    assert store.holds([2])
    store.close()


WRITER = """
import sys
from pathlib import Path
from appliance.experts.prefixes.images import Image
from appliance.experts.prefixes.store import PrefixStore
store = PrefixStore(Path(sys.argv[1]), state="model a", capacity=1 << 24)
print("ready", flush=True)
for number in range(1_000_000):
    store.put(Image((number % 40, number), 0, memoryview(bytes([number % 251]) * 100_000))).result()
"""


def test_a_writer_killed_at_any_moment_leaves_whole_files(folder: Path) -> None:
    for number in range(8):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(0.05 + 0.013 * number)
            os.kill(process.pid, signal.SIGKILL)
        store = opened(folder)
        assert store.refused == 0
        assert not list(folder.glob("*.tmp"))
        for stored in store.recent():
            assert loaded(store, list(stored.tokens)) is not None
        store.close()
