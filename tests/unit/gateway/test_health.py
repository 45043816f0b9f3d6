from appliance.gateway.health import BAD_ANSWERS_TO_OPEN, Health

KEY = ("attic", "large")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_endpoint_that_keeps_failing_is_avoided_for_longer_and_longer() -> None:
    clock = Clock()
    health = Health(clock=clock)
    pauses = []
    for _ in range(8):
        health.failure(KEY, health.begin(KEY), silent=True)
        start = clock.now
        while health.state(KEY) == "open":
            clock.now += 5
        pauses.append(clock.now - start)
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    health.answer(KEY)
    assert health.state(KEY) == "closed"
    health.failure(KEY, health.begin(KEY), silent=True)
    clock.now += 5
    assert health.state(KEY) == "half-open"


def test_of_many_requests_that_fail_together_the_first_one_counts() -> None:
    clock = Clock()
    opened: list[object] = []
    health = Health(clock=clock, opened=opened.append)
    begun = [health.begin(KEY) for _ in range(100)]
    clock.now = 2.0
    for one in begun:
        health.failure(KEY, one, silent=True)
    clock.now = 8.0
    assert health.state(KEY) == "half-open"
    assert opened == [KEY]


def test_one_request_tries_a_half_open_endpoint_and_the_others_go_elsewhere() -> None:
    clock = Clock()
    health = Health(clock=clock)
    health.failure(KEY, health.begin(KEY), silent=True)
    assert health.is_asked_last(KEY)
    clock.now = 5.0
    assert not health.is_asked_last(KEY)
    begun = health.begin(KEY)
    assert health.is_asked_last(KEY)
    health.cancel(KEY)
    assert not health.is_asked_last(KEY)
    begun = health.begin(KEY)
    health.failure(KEY, begun, silent=False)
    assert health.state(KEY) == "open"
    clock.now = 14.0
    assert health.state(KEY) == "open"
    clock.now = 15.0
    assert health.state(KEY) == "half-open"


def test_bad_answers_open_only_when_they_come_in_a_row() -> None:
    health = Health(clock=Clock())
    for _ in range(BAD_ANSWERS_TO_OPEN - 1):
        health.failure(KEY, health.begin(KEY), silent=False)
    assert health.state(KEY) == "closed"
    health.answer(KEY)
    for _ in range(BAD_ANSWERS_TO_OPEN - 1):
        health.failure(KEY, health.begin(KEY), silent=False)
    assert health.state(KEY) == "closed"
    health.failure(KEY, health.begin(KEY), silent=False)
    assert health.state(KEY) == "open"


def test_a_probe_that_fails_keeps_it_open_and_one_that_succeeds_then_ends_the_waiting() -> None:
    clock = Clock()
    health = Health(clock=clock)
    for _ in range(4):
        health.failure(KEY, health.begin(KEY), silent=True)
        clock.now += 1000
    health.failure(KEY, health.begin(KEY), silent=True)
    health.probed(KEY, alive=False)
    clock.now += 1000
    assert health.state(KEY) == "open"
    health.probed(KEY, alive=True)
    assert health.state(KEY) == "half-open"


def test_an_endpoint_that_fails_while_its_probe_is_well_waits_out_its_time() -> None:
    clock = Clock()
    health = Health(clock=clock)
    health.failure(KEY, health.begin(KEY), silent=True)
    health.probed(KEY, alive=True)
    assert health.state(KEY) == "open"
    clock.now = 5.0
    assert health.state(KEY) == "half-open"


def test_a_probe_finds_a_dead_endpoint_before_a_request_does() -> None:
    health = Health(clock=Clock())
    health.probed(KEY, alive=True)
    assert health.state(KEY) == "closed"
    health.probed(KEY, alive=False)
    assert health.state(KEY) == "open"
    health.forget(KEY)
    assert health.state(KEY) == "closed"
