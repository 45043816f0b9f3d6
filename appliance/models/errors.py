"""Errors of the models.

ModelError
├── CatalogueError     the catalogue, or the folder's own record, can't be read: correct the file
├── UnknownModelError  nothing has this id: ask for another
├── RefusedError       what was asked for is not safe: ask differently, or say that you mean it
├── BusyError          another command changes the models folder: wait for it
├── SpaceError         the disk is full, or would be: make room
├── SourceError        the source does not answer as it should: try later, or ask another source
└── IntegrityError     the bytes are not those that were promised: they were thrown away
"""


class ModelError(Exception):
    """Root of the package's errors; the text is for the user."""


class CatalogueError(ModelError):
    """The catalogue or the folder's record can't be read."""


class UnknownModelError(ModelError):
    """Nothing has this id."""


class RefusedError(ModelError):
    """What was asked for is not safe."""


class BusyError(ModelError):
    """Another command changes the models folder."""


class SpaceError(ModelError):
    """The disk is full, or would be."""


class SourceError(ModelError):
    """The source does not answer as it should."""


class IntegrityError(ModelError):
    """The bytes are not those that were promised."""
