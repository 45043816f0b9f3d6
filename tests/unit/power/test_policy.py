from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from appliance.node.sleeping.policy import Decide, Observation
from appliance.power.policy import SAVES_NOTHING, TOO_SHORT, Policy, Rules, Way
from appliance.settings.power import PowerSettings

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


NOON = berlin("2026-11-25T12:00")  # a Wednesday


def policy(**settings: object) -> Policy:
    return Policy(Rules.of(PowerSettings.model_validate(settings), BERLIN))


def idle(seconds: float, now: float = NOON, **more: object) -> Observation:
    seen = Observation(
        last_activity=now - seconds,
        awake_since=now - 86_400,
        active_requests=0,
        queued_jobs=0,
        sessions=(),
        update_running=False,
        inhibitors=(),
        stay_awake_until=None,
    )
    return replace(seen, **more)  # type: ignore[arg-type]


def test_it_is_what_the_nodes_daemon_wants() -> None:
    decide: Decide = policy()
    assert decide(idle(899), NOON).action == "stay"


def test_it_sleeps_when_nobody_has_used_it_for_long_enough() -> None:
    soon = policy()(idle(899), NOON)
    assert (soon.action, soon.reason, soon.until) == ("stay", "it was used less than 15 minutes ago", NOON + 1)
    assert soon.blockers == ()
    now = policy()(idle(900), NOON)
    assert (now.action, now.reason, now.wake_at) == ("suspend", "nobody has used it for 15 minutes", None)
    assert policy(mode="poweroff")(idle(900), NOON).action == "poweroff"
    never = policy(mode="never")(idle(1e6), NOON)
    assert (never.action, never.reason, never.until) == ("stay", "by its settings this machine never sleeps", inf)


@pytest.mark.parametrize(
    ("seen", "blockers"),
    [
        ({"active_requests": 1}, ("it answers requests",)),
        ({"queued_jobs": 2}, ("it answers requests",)),
        ({"update_running": True}, ("an update is being installed",)),
        ({"sessions": ("anna (seat0)", "bert (remote)")}, ("anna (seat0) is logged in", "bert (remote) is logged in")),
        ({"inhibitors": ("Backup forbids it",)}, ("Backup forbids it",)),
        ({"stay_awake_until": NOON + 60}, ("it was asked to stay awake",)),
    ],
)
def test_what_keeps_it_awake_is_said(seen: dict[str, Any], blockers: tuple[str, ...]) -> None:
    verdict = policy()(idle(9000, **seen), NOON)
    assert (verdict.action, verdict.blockers, verdict.reason) == ("stay", blockers, blockers[0])


def test_whoever_is_logged_in_may_be_left_out_of_account() -> None:
    verdict = policy(sleep_while_logged_in=True)(idle(9000, sessions=("anna (seat0)",)), NOON)
    assert (verdict.action, verdict.blockers) == ("suspend", ())


def test_what_may_be_used_at_any_moment_never_sleeps() -> None:
    for roles, reason in (
        (("expert",), "nobody has used it for 15 minutes"),
        (("expert", "vision"), "it serves as vision, which may be needed at any moment"),
        (("voice", "hub"), "it serves as hub and voice, which may be needed at any moment"),
    ):
        assert Policy(Rules.of(PowerSettings(), BERLIN, roles=roles))(idle(9000), NOON).reason == reason
    by_settings = Rules.of(PowerSettings(mode="never"), BERLIN, roles=("vision",))
    assert Policy(by_settings)(idle(9000), NOON).reason == "by its settings this machine never sleeps"


def test_a_request_to_stay_awake_ends() -> None:
    assert policy()(idle(9000, stay_awake_until=NOON), NOON).action == "suspend"


def test_hours_in_which_it_must_be_awake() -> None:
    rules = policy(awake=["weekdays 06:30-12:30"])
    verdict = rules(idle(9000), NOON)
    assert verdict.blockers == ("by its schedule it is awake until Wednesday 12:30",)
    assert verdict.until == NOON + 1800
    assert verdict.wake_at == berlin("2026-11-26T06:29:55"), "the next time, so early that it is there at 06:30"
    after = rules(idle(9000, NOON + 1800), NOON + 1800)
    assert (after.action, after.wake_at) == ("suspend", berlin("2026-11-26T06:29:55"))
    assert after.reason == "nobody has used it for 15 minutes; it wakes Thursday 06:29"
    assert policy(awake=["weekdays 06:30-11:00"], mode="poweroff")(idle(9000), NOON).wake_at == berlin(
        "2026-11-26T06:28:30"
    )


def test_hours_in_which_it_may_sleep_sooner() -> None:
    night = berlin("2026-11-25T23:00")
    rules = policy(sleep_sooner=["daily 23:00-06:00"])
    assert rules(idle(200, night), night).action == "suspend"
    before = rules(idle(200, night - 10), night - 10)
    assert (before.action, before.until) == ("stay", night), "when the hours begin, less is enough"
    assert rules.least_idle == 180


def test_hours_in_which_it_is_powered_off() -> None:
    rules = policy(power_off=["weekdays 09:00-16:00"], awake=["weekdays 16:00-22:00"])
    at_home = berlin("2026-11-25T07:00")
    assert rules(idle(9000), NOON).action == "poweroff"
    assert rules(idle(9000), NOON).wake_at == berlin("2026-11-25T15:58:30")
    assert rules(idle(9000, at_home), at_home).action == "suspend"
    late = berlin("2026-11-25T15:56")
    assert rules(idle(9000, late), late).action == "suspend", "off and on again would take longer than it pays"
    assert rules(idle(9000, late), late).wake_at == berlin("2026-11-25T15:59:55")


def test_a_sleep_that_does_not_pay_is_not_begun() -> None:
    # 10 s of way at 60 W instead of 15 W cost 450 J; asleep, 13 W are saved: 44.6 s in all.
    rules = policy(awake=["weekdays 12:01-13:00"])
    soon = berlin("2026-11-25T12:00:15")
    assert rules(idle(9000, soon), soon).action == "suspend"
    later = berlin("2026-11-25T12:00:16")
    verdict = rules(idle(9000, later), later)
    assert (verdict.action, verdict.reason, verdict.blockers) == ("stay", TOO_SHORT, (TOO_SHORT,))
    nothing = policy(idle_watts=2, asleep_watts=2)(idle(9000), NOON)
    assert (nothing.action, nothing.reason) == ("stay", SAVES_NOTHING)


def test_break_even() -> None:
    way = Way("suspend", down_seconds=4, up_seconds=6, watts=5)
    assert way.break_even(idle_watts=15, transition_watts=15) == 10
    assert way.break_even(idle_watts=15, transition_watts=25) == 20
    assert way.break_even(idle_watts=5, transition_watts=25) == inf


def test_it_stays_awake_for_a_while_after_it_woke() -> None:
    rules = policy(idle_after=60, minimum_awake=300)
    verdict = rules(idle(120, awake_since=NOON - 120), NOON)
    assert (verdict.action, verdict.until) == ("stay", NOON + 180)
    assert verdict.reason == "it has been awake for less than 5 minutes"
    assert rules(idle(120, awake_since=NOON - 300), NOON).action == "suspend"


# ---- properties

spans = st.builds(
    lambda days, start, end: f"{days} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}",
    st.sampled_from(["daily", "weekdays", "weekends", "wed", "thu,sat"]),
    st.integers(0, 700),
    st.integers(701, 1440),
)
hours = st.lists(spans, max_size=2)
choices = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["suspend", "poweroff", "never"]),
        "idle_after": st.floats(1, 7200),
        "idle_after_sooner": st.floats(1, 7200),
        "minimum_awake": st.floats(0, 3600),
        "awake": hours,
        "sleep_sooner": hours,
        "power_off": hours,
        "sleep_while_logged_in": st.booleans(),
        "idle_watts": st.floats(0, 60),
        "asleep_watts": st.floats(0, 30),
        "off_watts": st.floats(0, 30),
        "suspend_seconds": st.floats(0, 120),
        "resume_seconds": st.floats(0, 120),
        "boot_seconds": st.floats(0, 600),
    }
)


@dataclass
class Case:
    seen: Observation
    now: float


@st.composite
def cases(draw: st.DrawFn) -> Case:
    now = draw(st.floats(NOON - 20 * 86_400, NOON + 200 * 86_400))
    seen = Observation(
        last_activity=now - draw(st.floats(0, 10_000)),
        awake_since=now - draw(st.floats(0, 10_000)),
        active_requests=draw(st.integers(0, 1)),
        queued_jobs=draw(st.integers(0, 1)),
        sessions=draw(st.sampled_from([(), (), ("anna (seat0)",)])),
        update_running=draw(st.booleans()) and draw(st.booleans()),
        inhibitors=draw(st.sampled_from([(), (), ("Backup forbids it",)])),
        stay_awake_until=draw(st.none() | st.floats(now - 100, now + 10_000)),
    )
    return Case(seen, now)


@settings(deadline=None)
@given(choices, cases())
def test_it_never_sleeps_while_something_needs_it(chosen: dict[str, object], case: Case) -> None:
    verdict = policy(**chosen)(case.seen, case.now)
    seen = case.seen
    needed = (
        seen.active_requests
        or seen.queued_jobs
        or seen.update_running
        or seen.inhibitors
        or (seen.sessions and not chosen["sleep_while_logged_in"])
        or (seen.stay_awake_until is not None and seen.stay_awake_until > case.now)
    )
    if needed:
        assert verdict.action == "stay"
        assert verdict.blockers or chosen["mode"] == "never"
    assert verdict.reason
    assert "{" not in verdict.reason
    if verdict.action != "stay":
        assert verdict.blockers == ()
        assert case.now - seen.last_activity >= policy(**chosen).least_idle - 1e-6


@settings(deadline=None)
@given(choices, cases())
def test_the_alarm_is_in_the_future_and_in_time_for_the_schedule(chosen: dict[str, object], case: Case) -> None:
    rules = policy(**chosen)
    verdict = rules(case.seen, case.now)
    start = rules.rules.awake.next_start(case.now)
    if verdict.wake_at is not None:
        assert start is not None
        assert case.now < verdict.wake_at <= start
    if verdict.action != "stay":
        assert not rules.rules.awake.at(case.now)[0]
        assert (verdict.wake_at is None) == (start is None)


@settings(deadline=None)
@given(choices, cases(), st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_nothing_else_is_decided_before_the_time_that_it_names(
    chosen: dict[str, object], case: Case, shares: list[float]
) -> None:
    rules = policy(**chosen)
    verdict = rules(case.seen, case.now)
    if verdict.action != "stay":
        assert verdict.until == case.now
        return
    assert verdict.until > case.now
    end = min(verdict.until, case.now + 30 * 86_400)
    for share in shares:
        moment = case.now + share * (end - case.now)
        assume(moment < end)
        assert rules(case.seen, moment).action == "stay"
