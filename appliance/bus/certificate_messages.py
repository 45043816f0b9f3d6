"""Messages of certificates: whom the house trusts, and how a node renews its own. No secret is in them."""

from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from appliance.bus.messages import Message, RequestId, Slug

Pem = Annotated[str, StringConstraints(max_length=16_384)]


class HouseTrust(Message):
    """The CAs that the house trusts.

    Nobody takes a CA for good because it is in here: only if it is trusted already, or certified by one that is.
    """

    ca_pem: Pem
    """Their certificates; the one that signs first."""
    crossed_pem: Pem = ""
    """The certificate of the one that signs, by the one before it, while that is trusted."""
    due: tuple[Slug, ...] = ()
    """Nodes that shall renew their certificates now."""


class CertificateRequest(Message):
    """A node asks for a new certificate of its key."""

    id: RequestId
    request_pem: Pem
    """PKCS #10, signed with the key of the certificate that it has."""


class CertificateAnswer(Message):
    """The new certificate, or why there is none."""

    id: RequestId
    certificate_pem: Pem | None = None
    """With its chain."""
    error: Annotated[str, StringConstraints(max_length=300)] | None = Field(default=None)
    """One sentence for people."""

    @model_validator(mode="after")
    def _check_either(self) -> Self:
        if (self.certificate_pem is None) == (self.error is None):
            raise ValueError("either certificate_pem or error")
        return self
