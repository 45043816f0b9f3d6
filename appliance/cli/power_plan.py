"""How `rouse node` sleeps and counts its energy: made of the settings, from the power policy and the account."""

from collections.abc import Callable

from appliance.node.daemon import PowerPlan
from appliance.node.energy.monitor import EnergyOptions
from appliance.node.sleeping.policy import SleepOptions
from appliance.power.energy import AccountKeeper, Watts, account_file
from appliance.power.policy import Policy, Rules
from appliance.power.zone import house_zone
from appliance.settings.model import Settings


def power_plan(settings: Settings, *, update_running: Callable[[], bool] = lambda: False) -> PowerPlan:
    """Return the plan of the settings; the account is read from the state folder."""
    power = settings.power
    zone = house_zone(settings.system.time_zone)
    keeper = AccountKeeper(
        account_file(settings.paths.state),
        watts=Watts(idle=power.idle_watts, off=power.off_watts),
        zone=zone,
    )
    policy = Policy(Rules.of(power, zone, roles=settings.node.roles))
    mode = policy.rules.mode
    return PowerPlan(
        decide=policy,
        options=SleepOptions(
            method=None if mode == "never" else mode,
            without_wake=power.sleep_without_wake,
        ),
        update_running=update_running,
        account=keeper.account,
        keep=keeper.run,
        energy=EnergyOptions(
            sources=power.meters,
            idle_watts=power.idle_watts,
            busy_watts=power.busy_watts,
            asleep_watts=power.asleep_watts,
            interval=power.measure_interval,
        ),
    )
