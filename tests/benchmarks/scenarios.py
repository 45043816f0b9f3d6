"""What `make bench` runs, in this order; a further scenario is a module with a `SCENARIO`, named here."""

from tests.benchmarks import (
    brokers,
    gateway,
    io,
    joining,
    killed,
    prefixes,
    restart,
    router,
    router_blind,
    simulate,
    throughput,
    tls,
    turns,
)
from tests.benchmarks.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    throughput.SCENARIO,
    prefixes.SCENARIO,
    turns.SCENARIO,
    restart.SCENARIO,
    joining.SCENARIO,
    gateway.SCENARIO,
    tls.SCENARIO,
    killed.SCENARIO,
    router.SCENARIO,
    router_blind.SCENARIO,
    brokers.SCENARIO,
    simulate.SCENARIO,
    io.SCENARIO,
)
