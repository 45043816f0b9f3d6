"""Errors of the image's build.

- `ImageError`: the root
    - `StepError`: a program of the build failed; has its last lines
    - `LockError`: packages are not what the lock file says
    - `SigningError`: something can't be signed, or a signature is wrong
    - `RegistryError`: a registry can't be reached, refuses, or answers nonsense
    - `MachineError`: a virtual machine does not start, or does not do what is waited for
"""


class ImageError(Exception):
    """The message says what was wrong, where, and what to do."""


class StepError(ImageError):
    """A program of the build failed."""


class LockError(ImageError):
    """Packages are not what the lock file says."""


class SigningError(ImageError):
    """Something can't be signed, or a signature or checksum is wrong."""


class RegistryError(ImageError):
    """A registry can't be reached, refuses, or answers nonsense."""


class MachineError(ImageError):
    """A virtual machine does not start, or does not do what is waited for."""
