"""Errors of routing; each message says what was wrong, where, and what to do.

RoutingError
├── RouterFilesError   a trained router's files are not what they must be: train again, or activate another version
├── VersionError       there is no such version, or none to go back to: look at the list
├── SeedsError         a file of seed prompts can't be used: mend it
├── DataSetError       a line of a data set can't be used: mend or remove it
├── GenerationError    an expert can't be asked: see that it runs, then start again where it stopped
└── TrainingError      the data set is too small or too one-sided to train or evaluate with: generate more
"""


class RoutingError(Exception):
    """Root of the package's errors."""


class RouterFilesError(RoutingError):
    """A trained router's files are broken, foreign or too large."""


class VersionError(RoutingError):
    """A version of the router that does not exist."""


class SeedsError(RoutingError):
    """Seed prompts that can't be used."""


class DataSetError(RoutingError):
    """A data set that can't be used."""


class GenerationError(RoutingError):
    """An expert that can't be asked."""


class TrainingError(RoutingError):
    """Too little to learn from."""
