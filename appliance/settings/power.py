"""When this machine sleeps by itself, and what it draws."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from appliance.settings.section import Seconds, Section, conflict
from appliance.settings.weekly import Hours

Watts = Annotated[float, Field(ge=0, le=20_000, allow_inf_nan=False, json_schema_extra={"unit": "watts"})]
ZeroOrSeconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False, json_schema_extra={"unit": "seconds"})]


class PowerSettings(Section):
    """When this machine sleeps by itself, and what it draws; see docs/power-policy.md.

    A machine with the role hub, voice or vision never sleeps. Hours are days and times by the house's clock
    (`system.time_zone`): `weekdays 06:30-08:00`, `sat,sun 09:00-23:30`, `mon-thu 22:00-06:00` (into the next day),
    `daily 06:30` (that minute).
    """

    mode: Literal["never", "suspend", "poweroff"] = "suspend"
    """How it sleeps. Suspend to RAM, because an idle computer that draws 15 W costs more in a year than many are worth,
    and it is back within seconds. It happens only if something is known to be able to wake the machine, if nobody is
    logged in, and if systemd-logind allows it. Power-off draws a little less, and needs a minute to come back."""
    idle_after: Seconds = 900.0
    """How long nobody has used its experts before it sleeps. A conversation has pauses of minutes; a quarter of an hour
    awake costs 4 Wh."""
    idle_after_sooner: Seconds = 180.0
    """The same in the hours of `sleep_sooner`."""
    minimum_awake: ZeroOrSeconds = 300.0
    """How long it stays awake after it woke, whatever the hour, so that it does not go up and down all the time."""
    awake: Hours = ()
    """Hours in which it must be awake. Its own clock wakes it in time for them, if it has one."""
    sleep_sooner: Hours = ()
    """Hours in which it may sleep sooner, such as `daily 23:00-06:00`."""
    power_off: Hours = ()
    """Hours in which it is powered off rather than suspended, such as those in which nobody is at home. The machine
    must be able to be woken from that: many network cards are, by a firmware setting."""
    sleep_while_logged_in: bool = False
    """Whether it sleeps although somebody is logged in, on its screen or over SSH."""
    sleep_without_wake: bool = False
    """Whether it sleeps although neither a network card nor its clock is known to wake it. For machines that are woken
    by a smart plug, by IPMI or as virtual machines."""
    suspend_seconds: ZeroOrSeconds = 5.0
    """How long it takes to go to sleep."""
    resume_seconds: ZeroOrSeconds = 5.0
    """How long it takes to wake from suspend until its experts answer. It wakes so much earlier for `awake`; and a
    sleep that is too short to pay for going down and coming back is not begun."""
    shutdown_seconds: ZeroOrSeconds = 20.0
    """How long it takes to power off."""
    boot_seconds: ZeroOrSeconds = 90.0
    """How long it takes from power-off until its experts answer."""
    meters: tuple[Literal["plug", "ipmi", "rapl"], ...] = ("plug", "ipmi", "rapl")
    """What measures its power, in order of preference: the whole machine before parts of it. What does not answer is
    passed over; an estimate comes last."""
    measure_interval: Annotated[
        float, Field(ge=1, le=600, allow_inf_nan=False, json_schema_extra={"unit": "seconds"})
    ] = 30.0
    """Time between two readings. RAPL's counters wrap around after some 40 minutes at full load."""
    idle_watts: Watts = 15.0
    """What it draws awake and idle: for the estimate, and for what sleep saves while nothing that sees the whole
    machine measures it. 15 W is a small office computer; measure yours with a plug."""
    busy_watts: Watts = 60.0
    """What it draws with all processors in use, for the estimate."""
    asleep_watts: Watts = 2.0
    """What it draws suspended."""
    off_watts: Watts = 1.0
    """What it draws powered off, with a network card that listens."""

    @model_validator(mode="after")
    def _check_watts(self) -> "PowerSettings":
        if self.busy_watts < self.idle_watts:
            raise conflict("busy_watts", "must not be below idle_watts")
        if len(set(self.meters)) < len(self.meters):
            raise conflict("meters", "names one twice")
        return self
