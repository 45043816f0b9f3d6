import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from appliance.updates.health import FAILURE, HealthCheck, get
from appliance.updates.image import ImagePaths
from appliance.updates.installing import BEFORE
from appliance.updates.records import Baseline, Before, Failure, read, write

STATUS = "http://127.0.0.1:8101/health"
GATEWAY = "http://127.0.0.1:8100/health"
GOOD = {"status": "ok", "experts": {"small": "ready"}, "broker": {"connected": True}}


class World:
    """A machine that comes up, or not, while time passes."""

    def __init__(self, paths: ImagePaths) -> None:
        self.paths = paths
        self.now = 0.0
        self.units: dict[str, str] = {"rouse-node.service": "active"}
        self.answers: dict[str, Any] = {STATUS: GOOD, GATEWAY: {"status": "ok"}}
        self.later: dict[float, dict[str, Any]] = {}
        self.waited: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for when in [when for when in self.later if when <= self.now]:
            self.answers |= self.later.pop(when)

    def check(self) -> str | None:
        return HealthCheck(
            self.paths,
            60.0,
            self.waited.append,
            units=lambda: self.units,
            ask=self.answers.get,
            monotonic=lambda: self.now,
            sleep=self.sleep,
        ).run()


@pytest.fixture
def world(paths: ImagePaths) -> World:
    return World(paths)


def baseline(world: World, version: str = "1.0") -> None:
    kept = Baseline(status=STATUS, gateway=GATEWAY, experts=["small"], broker=True)
    write(world.paths.own / BEFORE, Before(version=version, baseline=kept))


def test_all_is_up(world: World) -> None:
    baseline(world)
    assert world.check() is None
    assert world.paths.healthy.exists()
    assert not (world.paths.own / BEFORE).exists()


def test_what_comes_up_late_is_waited_for(world: World) -> None:
    baseline(world)
    world.answers[STATUS] = {**GOOD, "experts": {"small": "starting"}}
    world.later[20.0] = {STATUS: GOOD}
    assert world.check() is None
    assert world.now == 20.0
    assert "the expert small is starting" in world.waited[0]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({STATUS: None}, "the node daemon does not answer"),
        ({GATEWAY: None}, "the gateway does not answer"),
        ({STATUS: {**GOOD, "experts": {"small": "failed"}}}, "the expert small is failed"),
        ({STATUS: {**GOOD, "experts": {}}}, "the expert small is gone"),
        ({STATUS: {**GOOD, "experts": "nonsense"}}, "the expert small is gone"),
        ({STATUS: {**GOOD, "broker": {"connected": False}}}, "the broker is not reached"),
        ({STATUS: {**GOOD, "broker": None}}, "the broker is not reached"),
    ],
)
def test_what_was_up_and_is_not(world: World, broken: dict[str, Any], reason: str) -> None:
    baseline(world)
    world.answers |= broken
    said = world.check()
    assert said is not None
    assert reason in said
    assert not world.paths.healthy.exists()
    failure = read(world.paths.own / FAILURE, Failure)
    assert failure is not None
    assert failure.version == "1.0"
    assert reason in failure.reason


def test_a_unit_that_failed(world: World) -> None:
    world.units["rouse-hub.service"] = "failed"
    said = world.check()
    assert said is not None
    assert "rouse-hub.service is failed" in said


def test_without_an_update_only_the_units_count(world: World) -> None:
    world.answers = {}
    assert world.check() is None


def test_another_version_s_baseline_does_not_count(world: World) -> None:
    baseline(world, "2.0")
    world.answers = {}
    assert world.check() is None


def test_a_baseline_names_no_other_machine(world: World) -> None:
    text = '{"version": "1.0", "baseline": {"status": "http://192.0.2.1:80/health"}}'
    (world.paths.own / BEFORE).write_text(text)
    world.answers = {}
    assert world.check() is None


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = {"/good": b'{"a": 1}', "/list": b"[]", "/text": b"hello"}.get(self.path)
        self.send_response(200 if body is not None else 503)
        self.end_headers()
        self.wfile.write(body or b"{}")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        pass


@pytest.fixture
def server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_asking(server: str) -> None:
    assert get(f"{server}/good") == {"a": 1}
    for path in ("/list", "/text", "/missing"):
        assert get(server + path) is None
    assert get("http://127.0.0.1:9/health") is None
