"""The policies that are compared."""

from collections.abc import Sequence

from appliance.power.policy import duration
from appliance.power.simulate.scenario import Contender
from appliance.settings.power import PowerSettings

USUAL_HOURS = ("weekdays 06:30-08:30", "daily 17:00-22:30")
"""When a household is most likely at home, where no schedule is set."""
IDLE_TIMES = (120.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0)
THRESHOLDS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def standard(settings: PowerSettings, threshold: float) -> tuple[Contender, ...]:
    """Return the four that are always compared; the machine's other settings are those given."""
    sleeping = settings if settings.mode != "never" else settings.model_copy(update={"mode": "suspend"})
    bare = sleeping.model_copy(update={"awake": ()})
    scheduled = sleeping if sleeping.awake else sleeping.model_copy(update={"awake": USUAL_HOURS})
    return (
        Contender("always on", bare.model_copy(update={"mode": "never"})),
        Contender("idle time", bare),
        Contender("idle time + schedule", scheduled),
        Contender("idle time + forecast", bare, threshold),
    )


def for_chart(settings: PowerSettings) -> Sequence[tuple[str, str, Contender]]:
    """Return series, setting and policy for each point of the chart."""
    always_on, bare, scheduled, _ = standard(settings, 1.0)
    points = [("always on", "", always_on)]
    for idle in IDLE_TIMES:
        longer = bare.settings.model_copy(update={"idle_after": idle})
        points.append(("idle time", duration(idle), Contender("idle time", longer)))
    points.append(("idle time + schedule", "", scheduled))
    points += [
        ("idle time + forecast", f"{threshold:g}", Contender("forecast", bare.settings, threshold))
        for threshold in THRESHOLDS
    ]
    return points
