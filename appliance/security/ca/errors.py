"""Errors of the certificate authority.

CaError
├── RequestRefusedError       a request for a certificate is none that may be granted: refuse who sent it
├── UnknownCertificateError   nobody of that name has a certificate: tell the user
└── CaStorageError            the CA's folder can't be read or written: look at the disk
"""


class CaError(Exception):
    """Root of the package's errors."""


class RequestRefusedError(CaError):
    """A request for a certificate can't be granted."""


class UnknownCertificateError(CaError):
    """There is no such certificate."""


class CaStorageError(CaError):
    """The CA's folder can't be used."""
