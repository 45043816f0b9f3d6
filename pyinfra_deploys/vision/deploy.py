"""Converges Frigate."""

from pathlib import Path

from pyinfra.api import deploy
from pyinfra.operations import files

from appliance.settings.vision import FRIGATE_PORT
from pyinfra_deploys import generated, packages, systemd
from pyinfra_deploys.target import machine, settings
from pyinfra_deploys.vision import frigate
from pyinfra_deploys.vision.operations import only_these

TEMPLATES = Path(__file__).parent / "templates"
QUADLET = "/etc/containers/systemd/frigate.container"
CONFIG = "/var/lib/rouse-vision/config"
SECRETS = "/var/lib/rouse-vision/secrets"
_MEMORY_MAX = "75%"


@deploy("Vision")
def vision() -> None:
    """Have Frigate look at the cameras of the settings; without any, there is none.

    Raises:
        DeployError: a secret or the broker is missing, or the image lacks podman.
    """
    own = settings()
    if not own.vision.cameras:
        systemd.running(changed=[generated.absent(QUADLET)])
        return
    packages.installed("podman")
    for folder in (CONFIG, SECRETS, str(own.vision.media)):
        files.directory(name=f"Have the folder {folder}", path=folder, mode="700", user="root", group="root")
    wanted = dict(frigate.secrets(own))
    changed = [
        generated.text(f"{content}\n", f"{SECRETS}/{name}", mode="600", secret=True) for name, content in wanted.items()
    ]
    changed.append(only_these(name=f"Keep nothing else in {SECRETS}", folder=SECRETS, names=sorted(wanted)))
    changed.append(
        generated.template(
            TEMPLATES / "config.yml.j2", f"{CONFIG}/config.yml", mode="600", **frigate.config(own, machine().name)
        )
    )
    changed.append(
        generated.template(
            TEMPLATES / "frigate.container.j2",
            QUADLET,
            image=own.vision.image,
            config=CONFIG,
            media=own.vision.media,
            secrets=SECRETS,
            ca_file=frigate.mqtt(own, machine().name).ca_file or "",
            port=FRIGATE_PORT,
            devices=frigate.devices(own),
            shared_megabytes=frigate.shared_megabytes(own),
            time_zone=own.system.time_zone or "Etc/UTC",
            memory_max=_MEMORY_MAX,
        )
    )
    systemd.running("frigate.service", changed=changed)
