"""An estimate from the processor's load: better than nothing, and always said to be one."""

from collections.abc import Callable

from appliance.node.energy.meter import Reading, Source


class Estimate:
    """Between the watts of an idle machine and those of a busy one, by the share of the processor in use.

    A line between the two is within some 10 % for whole machines: Fan, Weber and Barroso, "Power Provisioning for a
    Warehouse-sized Computer", ISCA 2007.
    """

    source: Source = "estimate"

    def __init__(self, *, idle_watts: float, busy_watts: float, cpu: Callable[[], float]) -> None:
        """Take the two numbers of the settings, and what tells the processor's load, from 0 to 1."""
        self._idle = idle_watts
        self._busy = busy_watts
        self._cpu = cpu

    async def read(self) -> Reading:
        """Return the estimate for this moment."""
        return Reading("estimate", self._idle + (self._busy - self._idle) * min(1.0, max(0.0, self._cpu())))

    def forget(self) -> None:
        """Do nothing: each estimate stands alone."""
