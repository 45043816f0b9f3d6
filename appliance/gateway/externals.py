"""How endpoints are spoken to: with which key, under which name of the model, and where their health is."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from appliance.errors import StartError
from appliance.gateway.errors import BadAnswerError, SilentError
from appliance.gateway.registry import EXTERNAL_NODE
from appliance.routing.candidates import Endpoint
from appliance.security.ca.errors import CaError
from appliance.security.secrets import SecretError, read_secret
from appliance.settings.model import ExternalSettings


@dataclass(frozen=True, slots=True)
class Access:
    """What a request to an endpoint needs besides its URL."""

    model: str
    """What the endpoint calls the model."""
    probe_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """With the key, so they go nowhere else."""
    tls: ssl.SSLContext | bool = True

    def without_key(self, text: str) -> str:
        """Return what a server says, without the key that some repeat when they refuse it."""
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return text.replace(key, "…") if key else text


@dataclass(frozen=True, slots=True)
class External:
    """An expert that is not the house's own."""

    endpoint: Endpoint
    access: Access


class NodeTrust(Protocol):
    """How the house's nodes are verified."""

    @property
    def nodes(self) -> frozenset[str]:
        """Those that have a certificate."""

    def client(self, node: str) -> ssl.SSLContext:
        """Return what connects to a node, and to nobody else."""


class AccessBook:
    """The access to every endpoint."""

    def __init__(self, *, expert_key: str, externals: Mapping[str, External], trust: NodeTrust | None = None) -> None:
        """Take the key of the house's own experts, the others by name, and how nodes are verified."""
        self._own = {"Authorization": f"Bearer {expert_key}"}
        self._externals = externals
        self._trust = trust

    def of(self, endpoint: Endpoint) -> Access:
        """Return what a request to an endpoint needs.

        Raises:
            BadAnswerError: a node that has a certificate is announced at an address where it would not show it.
            SilentError: the hub's own certificate can't be used.
        """
        if endpoint.external:
            return self._externals[endpoint.name].access
        return Access(endpoint.name, endpoint.url.removesuffix("/v1") + "/health", self._own, self._tls(endpoint))

    def _tls(self, endpoint: Endpoint) -> ssl.SSLContext | bool:
        if self._trust is None:
            return True
        if not endpoint.url.startswith("https:"):
            if endpoint.node in self._trust.nodes:
                raise BadAnswerError(f"node {endpoint.node} has a certificate, but {endpoint.url} speaks no TLS")
            return True
        try:
            return self._trust.client(endpoint.node)
        except (SecretError, CaError) as error:
            raise SilentError(str(error)) from error


def external_experts(settings: Mapping[str, ExternalSettings]) -> dict[str, External]:
    """Return the externals of the settings, by name.

    Raises:
        SecretError: a key can't be read.
        StartError: the certificates can't be read.
    """
    return {name: _external(name, one) for name, one in settings.items()}


def _external(name: str, settings: ExternalSettings) -> External:
    endpoint = Endpoint(
        name=name,
        node=EXTERNAL_NODE,
        url=settings.url,
        capabilities=frozenset(settings.capabilities),
        context=settings.context,
        slots=settings.slots,
        priority=settings.priority,
        external=True,
    )
    key = _key(settings)
    access = Access(
        model=settings.model or name,
        probe_url=_on_host(settings.url, settings.health) if settings.health else f"{settings.url}/models",
        headers={"Authorization": f"Bearer {key}"} if key is not None else {},
        tls=_tls(name, settings),
    )
    return External(endpoint, access)


def _key(settings: ExternalSettings) -> str | None:
    if settings.key_file is not None:
        key = read_secret(settings.key_file)
        if not (key.isascii() and key.isprintable()):
            raise SecretError(f"{settings.key_file}: must be printable ASCII")
        return key
    return settings.key.get_secret_value() if settings.key is not None else None


def _tls(name: str, settings: ExternalSettings) -> ssl.SSLContext | bool:
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"gateway.externals.{name}.ca_file: {settings.ca_file} can't be read: {error}") from error


def _on_host(url: str, path: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))
