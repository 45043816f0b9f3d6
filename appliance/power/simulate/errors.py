"""What may be wrong with a simulation.

SimulationError
└── DemandFileError   a recording can't be used; the message names the file and the line
"""


class SimulationError(Exception):
    """Root of the package's errors; the message is a sentence for people."""


class DemandFileError(SimulationError):
    """A recording can't be used."""
