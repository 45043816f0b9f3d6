"""The house's own certificate authority."""

from typing import Annotated

from pydantic import Field

from appliance.settings.section import Section


class CertificateSettings(Section):
    """On the hub: the CA that issues the certificates of nodes; see docs/certificates.md.

    How long the certificate of a node is valid is `pairing.certificate_days`.
    """

    ca_days: Annotated[int, Field(ge=30, le=36_500)] = 3650
    """Days for which a CA is valid. It is replaced by itself before it would cut a certificate short, so ten years mean
    that this happens rarely."""
    overlap_days: Annotated[int, Field(ge=1, le=3650)] = 90
    """Days for which a replaced CA is still trusted. A node that is not online within them must be paired anew."""
    crl_days: Annotated[int, Field(ge=2, le=365)] = 30
    """Days for which the list of revoked certificates is valid. It is renewed daily while the hub runs, and at each
    revocation; a broker of its own process refuses everybody when the hub was away for longer."""
