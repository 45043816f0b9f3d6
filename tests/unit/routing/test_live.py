from pathlib import Path

import pytest

from appliance.routing import live as live_module
from appliance.routing.errors import RouterFilesError, VersionError
from appliance.routing.files import MANIFEST, save
from appliance.routing.live import LiveRouter
from appliance.routing.rules import RulesRouter
from appliance.routing.versions import CURRENT, RouterVersions
from tests.unit.routing.trained import router

EXPERTS = ["big", "small"]


@pytest.fixture
def versions(tmp_path: Path) -> RouterVersions:
    found = RouterVersions(tmp_path / "router")
    for name in ("v1", "v2"):
        save(found.path(name), router(name=name), created="now", about={})
    return found


def live(versions: RouterVersions) -> LiveRouter:
    started = LiveRouter(folder=versions.folder, rules=RulesRouter(rules={"maths": ["small"]}, purposes={}))
    started.start()
    return started


def asked(live_router: LiveRouter) -> str:
    """Return who decides once what is new has been read."""
    live_router.choose("x", EXPERTS)
    live_router.settle()
    return live_router.choose("x", EXPERTS).router


def test_rules_while_there_is_no_trained_router(versions: RouterVersions) -> None:
    decision = live(versions).choose("What is 3 + 4?", EXPERTS)
    assert decision.router == "rules"
    assert decision.experts == ("small",)
    assert decision.reason.endswith("(by rules: there is no trained router)")


def test_the_active_version_decides_from_the_start(versions: RouterVersions) -> None:
    versions.activate("v1")
    assert live(versions).choose("x", EXPERTS).router == "v1"


def test_another_version_is_taken_up_and_given_back_while_running(versions: RouterVersions) -> None:
    running = live(versions)
    versions.activate("v1")
    assert asked(running) == "v1"
    versions.activate("v2")
    assert versions.previous() == "v1"
    assert running.choose("x", EXPERTS).router in {"v1", "v2"}, "the old one decides while the new one is read"
    assert asked(running) == "v2"
    assert versions.rollback() == "v1"
    assert asked(running) == "v1"
    assert versions.rollback() == "v2"
    (versions.folder / CURRENT).unlink()
    assert asked(running) == "rules"


def test_an_expert_that_it_does_not_know(versions: RouterVersions) -> None:
    versions.activate("v1")
    running = live(versions)
    decision = running.choose("What is 3 + 4?", [*EXPERTS, "new"])
    assert decision.router == "rules"
    assert "v1 does not know new" in decision.reason
    assert running.choose("x", ["big"]).router == "v1"


def test_a_broken_version(versions: RouterVersions, caplog: pytest.LogCaptureFixture) -> None:
    versions.activate("v1")
    (versions.path("v1") / MANIFEST).write_text("{")
    decision = live(versions).choose("x", EXPERTS)
    assert decision.router == "rules"
    assert "v1 is broken" in decision.reason
    assert "train again" in caplog.text


def test_a_reader_that_fails_in_a_new_way_is_started_once(
    versions: RouterVersions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running = live(versions)
    reads = []

    def fail(folder: Path) -> None:
        reads.append(folder)
        raise LookupError("never seen")

    monkeypatch.setattr(live_module, "load", fail)
    versions.activate("v1")
    for _ in range(5):
        assert running.choose("x", EXPERTS).router == "rules"
        running.settle()
    assert reads == [versions.path("v1")]
    assert "v1 is broken" in running.choose("x", EXPERTS).reason
    assert "never seen" in caplog.text
    started = live(versions)
    assert "v1 is broken" in started.choose("x", EXPERTS).reason


@pytest.mark.parametrize("target", ["/etc", "versions/../../x", "versions/gone", "versions"])
def test_a_link_to_elsewhere_is_not_followed(versions: RouterVersions, target: str) -> None:
    (versions.folder / CURRENT).symlink_to(target)
    assert live(versions).choose("x", EXPERTS).router == "rules"


def test_a_broken_or_missing_version_is_not_activated(versions: RouterVersions) -> None:
    versions.activate("v1")
    (versions.path("v2") / MANIFEST).write_text("{")
    with pytest.raises(RouterFilesError):
        versions.activate("v2")
    with pytest.raises(VersionError, match="no version 'v9'"):
        versions.activate("v9")
    with pytest.raises(VersionError, match="can't be a version"):
        versions.activate("../x")
    with pytest.raises(VersionError, match="no version to go back to"):
        versions.rollback()
    assert versions.current() == "v1"
    assert versions.names() == ["v1", "v2"]


def test_a_version_under_another_name_is_not_activated(versions: RouterVersions) -> None:
    versions.path("v1").rename(versions.path("v3"))
    with pytest.raises(RouterFilesError, match="another version"):
        versions.activate("v3")
