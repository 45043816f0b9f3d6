"""Converges what measures the house."""

import json
from ipaddress import ip_interface
from pathlib import Path

from pyinfra import host, logger
from pyinfra.api import deploy
from pyinfra.api.operation import OperationMeta

from appliance.security.layout import secret_file
from appliance.settings import Settings
from pyinfra_deploys import generated, packages, systemd
from pyinfra_deploys.errors import DeployError
from pyinfra_deploys.firewall.openings import is_loopback
from pyinfra_deploys.inventory import Machine
from pyinfra_deploys.monitoring.dashboards import DASHBOARDS
from pyinfra_deploys.monitoring.keys import key_made, key_of
from pyinfra_deploys.monitoring.operations import folder_of_metrics, password_made
from pyinfra_deploys.monitoring.panels import SOURCE
from pyinfra_deploys.monitoring.targets import Target, daemons, exporters, gateway, listening, overlay_address
from pyinfra_deploys.overlay.peers import bracketed
from pyinfra_deploys.target import everyone, is_chroot, is_image, machine, roles, settings

TEMPLATES = Path(__file__).parent / "templates"
FOLDER = "/etc/prometheus/rouse"
KEYS = f"{FOLDER}/keys"
CONFIG = f"{FOLDER}/prometheus.yml"
ALERTS = f"{FOLDER}/alerts.yml"
DATA = "/var/lib/prometheus/metrics2"
CREDENTIAL = "rouse-gateway.key"
_DASHBOARDS = "/etc/grafana/rouse"
_GRAFANA_KEYRING = "/etc/apt/keyrings/grafana.gpg"
_SECONDS_TO_ANSWER = 10.0


def drop_in(unit: str) -> str:
    """Return the file that changes a unit of Debian's."""
    return f"/etc/systemd/system/{unit}.service.d/50-rouse.conf"


@deploy("Monitoring: keys")
def monitoring_keys() -> None:
    """Have the key that the node daemon's metrics want. A folder gets none: it may become many machines."""
    if settings().monitoring.enabled and not is_loopback(settings().node.status_host) and not is_chroot():
        key_made(name="Make the key for the node's metrics", path=_metrics_key(settings()))


@deploy("Monitoring")
def monitoring() -> None:
    """Have the node exporter, and on the hub Prometheus and Grafana; or none of them.

    Raises:
        DeployError: the image lacks a package, or Grafana's repository has no key.
    """
    wanted = settings().monitoring
    hub = "hub" in roles()
    if wanted.enabled:
        _exporter()
    else:
        _gone("prometheus-node-exporter")
    if wanted.enabled and hub:
        _prometheus()
    else:
        _gone("prometheus")
    if wanted.enabled and hub and wanted.grafana:
        _grafana()
    else:
        _gone("grafana-server")


def _gone(unit: str) -> None:
    generated.absent(drop_in(unit))
    systemd.disabled(f"{unit}.service")


def _exporter() -> None:
    wanted = settings().monitoring
    packages.installed("prometheus-node-exporter")
    folder_of_metrics(name=f"Have the folder {wanted.textfiles}", folder=str(wanted.textfiles))
    addresses = [f"{bracketed(address)}:{wanted.node_exporter_port}" for address in listening(settings())]
    changed = generated.template(
        TEMPLATES / "node-exporter.service.conf.j2",
        drop_in("prometheus-node-exporter"),
        addresses=addresses,
        textfiles=wanted.textfiles,
        allowed=_allowed(settings()),
    )
    systemd.enabled("prometheus-node-exporter.service")
    systemd.running("prometheus-node-exporter.service", changed=[changed])


def _prometheus() -> None:
    wanted, own, house = settings().monitoring, machine(), _house()
    packages.installed("prometheus")
    targets = daemons(own, house)
    _keys(targets)
    config = generated.text(prometheus_config(own, house), CONFIG, check="promtool check config --syntax-only {new}")
    alerts = generated.text(alert_rules(settings()), ALERTS, check="promtool check rules {new}")
    unit = generated.template(
        TEMPLATES / "prometheus.service.conf.j2",
        drop_in("prometheus"),
        config=CONFIG,
        data=DATA,
        days=wanted.retention_days,
        megabytes=wanted.retention_megabytes,
        port=wanted.prometheus_port,
        credential=CREDENTIAL,
        gateway_key=gateway_key(settings()),
        allowed=_allowed(settings()) if _all_near(targets, exporters(own, house)) else (),
    )
    systemd.enabled("prometheus.service")
    systemd.running("prometheus.service", changed=[unit])
    systemd.running("prometheus.service", changed=[config, alerts], verb="reload-or-restart")


def _house() -> tuple[Machine, ...]:
    """Return the house with this machine in it, as it is called now."""
    own = machine()
    return (own, *(other for other in everyone() if other.name != own.name))


def prometheus_config(
    hub: Machine,
    house: tuple[Machine, ...],
    *,
    rules: str = ALERTS,
    keys: str = KEYS,
    key: str = f"/run/credentials/prometheus.service/{CREDENTIAL}",
) -> str:
    """Return Prometheus' configuration. Raises DeployError."""
    interval = hub.settings.monitoring.scrape_interval
    return generated.render(
        TEMPLATES / "prometheus.yml.j2",
        hub=hub.name,
        interval=f"{interval:g}",
        timeout=f"{min(interval, _SECONDS_TO_ANSWER):g}",
        rules=rules,
        keys=keys,
        own=f"127.0.0.1:{hub.settings.monitoring.prometheus_port}",
        gateway=gateway(hub.settings),
        gateway_key=key,
        daemons=daemons(hub, house),
        exporters=exporters(hub, house),
    )


def alert_rules(hub: Settings) -> str:
    """Return the alert rules. Raises DeployError."""
    wanted = hub.monitoring
    return generated.render(
        TEMPLATES / "alerts.yml.j2",
        free_ratio=wanted.disk_full_ratio,
        celsius=wanted.temperature_celsius,
        backup_hours=wanted.backup_hours,
        certificate_days=wanted.certificate_days,
    )


def _keys(targets: tuple[Target, ...]) -> None:
    by_name = {other.name: other.settings for other in _house()}
    missing = []
    for target in targets:
        if not target.key or is_chroot():
            continue
        found = key_of(target.node, _metrics_key(by_name[target.node]))
        if found is None:
            missing.append(target.node)
        else:
            file = f"{KEYS}/{target.node}.key"
            generated.text(f"{found}\n", file, mode="640", group="prometheus", secret=True)
    if missing:
        logger.warning(
            "%s keeps the keys that it has of %s: this run does not reach them", host.name, ", ".join(missing)
        )


def _grafana() -> None:
    wanted = settings().monitoring
    if not is_image():
        if wanted.grafana_keyring is None:
            raise DeployError(
                "monitoring.grafana_keyring is not set: download the signing key of "
                f"{wanted.grafana_repository}, compare it with what Grafana publishes, and name the file there"
            )
        try:
            keyring = wanted.grafana_keyring.read_bytes()
        except OSError as error:
            problem = f"{wanted.grafana_keyring} can't be read: {error.strerror}"
            raise DeployError(f"monitoring.grafana_keyring: {problem}") from error
        generated.binary(keyring, _GRAFANA_KEYRING)
        generated.template(
            TEMPLATES / "grafana.sources.j2",
            "/etc/apt/sources.list.d/grafana.sources",
            repository=wanted.grafana_repository,
            keyring=_GRAFANA_KEYRING,
        )
    packages.installed("grafana")
    password = str(settings().paths.state / "secrets" / "grafana.password")
    if not is_chroot():
        password_made(name="Make Grafana's first password", path=password)
    changed: list[OperationMeta] = [
        generated.template(
            TEMPLATES / "grafana-source.yml.j2",
            "/etc/grafana/provisioning/datasources/rouse.yml",
            uid=SOURCE,
            port=wanted.prometheus_port,
            interval=f"{wanted.scrape_interval:g}",
        ),
        generated.template(
            TEMPLATES / "grafana-dashboards.yml.j2",
            "/etc/grafana/provisioning/dashboards/rouse.yml",
            folder=_DASHBOARDS,
        ),
        generated.template(
            TEMPLATES / "grafana.service.conf.j2",
            drop_in("grafana-server"),
            address=overlay_address(settings()) or "127.0.0.1",
            port=wanted.grafana_port,
            password=password,
            allowed=[network for network in _allowed(settings()) if network != "localhost"],
        ),
    ]
    for dashboard in DASHBOARDS:
        content = json.dumps(dashboard.as_json(), indent=1, ensure_ascii=False) + "\n"
        changed.append(generated.text(content, f"{_DASHBOARDS}/{dashboard.uid}.json"))
    systemd.enabled("grafana-server.service")
    systemd.running("grafana-server.service", changed=changed)


def gateway_key(hub: Settings) -> str:
    """Return the file of the key that the gateway wants."""
    return str(secret_file(hub.paths.state, "gateway.key"))


def _metrics_key(node: Settings) -> str:
    return str(secret_file(node.paths.state, "metrics.key"))


def _allowed(own: Settings) -> tuple[str, ...]:
    """Return the networks that the kernel lets a service talk to; none where they are not known."""
    if own.overlay.kind == "tailscale" and own.overlay.address is None:
        return ()
    if own.overlay.kind == "none" or own.overlay.address is None:
        return ("localhost",)
    return ("localhost", str(ip_interface(own.overlay.address).network))


def _all_near(*targets: tuple[Target, ...]) -> bool:
    """Whether all that Prometheus asks is on this machine or in the overlay."""
    near = {"127.0.0.1", "[::1]", "localhost"} | {
        bracketed(address) for other in everyone() if (address := overlay_address(other.settings)) is not None
    }
    return all(target.address.rpartition(":")[0] in near for group in targets for target in group)
