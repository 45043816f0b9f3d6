from appliance.agents.ledger import GRACE_SECONDS, MAX_ENTRIES, Ledger
from appliance.bus.messages import ReplyFailed

FINAL = ReplyFailed(id="request-1", seq=0, code="cancelled", message="")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_request_is_remembered_until_some_time_after_its_deadline() -> None:
    clock = Clock()
    ledger = Ledger(clock=clock)
    entry = ledger.open(("house", "request-1"), deadline=1030)
    assert entry is not None
    entry.final = FINAL
    clock.now = 1030 + GRACE_SECONDS - 1
    ledger.open(("house", "request-2"), deadline=1100)
    assert ledger.find(("house", "request-1")) is entry
    clock.now = 1030 + GRACE_SECONDS + 1
    ledger.open(("house", "request-3"), deadline=1200)
    assert ledger.find(("house", "request-1")) is None


def test_a_running_request_is_never_forgotten() -> None:
    clock = Clock()
    ledger = Ledger(clock=clock)
    entry = ledger.open(("house", "request-1"), deadline=1001)
    clock.now = 99_999
    ledger.open(("house", "request-2"), deadline=100_000)
    assert ledger.find(("house", "request-1")) is entry


def test_clients_do_not_see_each_other() -> None:
    ledger = Ledger(clock=Clock())
    ledger.open(("house", "request-1"), deadline=1100)
    assert ledger.find(("other", "request-1")) is None


def test_it_stays_bounded() -> None:
    ledger = Ledger(clock=Clock())
    for number in range(MAX_ENTRIES):
        assert ledger.open(("house", str(number)), deadline=2000) is not None
    assert ledger.open(("house", "one too many"), deadline=2000) is None
