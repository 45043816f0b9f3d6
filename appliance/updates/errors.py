"""Errors of updates.

UpdateError
├── SourceError      what is published can't be had: try later, or correct updates.source
├── SignatureError   what is published is not signed by a key of this image, or is not what was signed: nothing is used
├── RefusedError     it is not to be installed here, now or in this way: ask differently
├── SpaceError       the disk, or the slot, is too small
└── InstallError     it could not be installed; the running version is untouched
"""


class UpdateError(Exception):
    """Root of the package's errors; the text is for the user."""


class SourceError(UpdateError):
    """What is published can't be had."""


class SignatureError(UpdateError):
    """What is published is not signed by a key of this image, or is not what was signed."""


class RefusedError(UpdateError):
    """It is not to be installed here, now or in this way."""


class SpaceError(UpdateError):
    """The disk, or the slot, is too small."""


class InstallError(UpdateError):
    """It could not be installed; the running version is untouched."""
