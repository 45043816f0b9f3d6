"""Frigate's configuration and secrets from the settings.

https://docs.frigate.video/configuration/reference. `{FRIGATE_NAME}` in it stands for the content of the file
/run/secrets/FRIGATE_NAME.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from appliance.security.secrets import SecretError, read_secret
from appliance.settings import Settings
from appliance.settings.vision import CameraSettings
from pyinfra_deploys.errors import DeployError

CA_IN_CONTAINER = "/etc/rouse-broker-ca.pem"
_SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"
_PORTS = {"mqtt": 1883, "mqtts": 8883}
_MQTT_PASSWORD = "FRIGATE_MQTT_PASSWORD"  # noqa: S105 - a name
_DETECTORS: Mapping[str, tuple[str, str]] = {
    "cpu": ("cpu", ""),
    "openvino": ("openvino", "CPU"),
    "openvino-gpu": ("openvino", "GPU"),
    "edgetpu-usb": ("edgetpu", "usb"),
    "edgetpu-pci": ("edgetpu", "pci"),
}
_LOG_MEGABYTES = 40
"""What Frigate's logs take of the shared memory."""
_FRAMES = 20
"""Frames of each camera that Frigate has in shared memory."""


@dataclass(frozen=True, slots=True)
class Mqtt:
    """The way to the broker."""

    host: str
    port: int
    client_id: str
    user: str
    tls: bool
    ca: str
    ca_file: Path | None
    """On the machine itself; None for the system's CAs."""


def mqtt(settings: Settings, name: str) -> Mqtt:
    """Return the way to the broker.

    Raises:
        DeployError: the settings name no broker.
    """
    url = settings.vision.mqtt_url or settings.broker.url
    if url is None:
        raise DeployError("vision.mqtt_url is not set, and broker.url neither: which broker should Frigate use?")
    parts = urlsplit(url)
    tls = parts.scheme == "mqtts"
    ca_file = settings.vision.mqtt_ca_file or settings.broker.ca_file
    return Mqtt(
        host=parts.hostname or "",
        port=parts.port or _PORTS[parts.scheme],
        client_id=f"frigate-{name}",
        user=settings.vision.mqtt_username,
        tls=tls,
        ca=CA_IN_CONTAINER if ca_file is not None else _SYSTEM_CAS,
        ca_file=ca_file if tls else None,
    )


def config(settings: Settings, name: str) -> dict[str, Any]:
    """Return what the template of config.yml can use.

    Raises:
        DeployError: the settings name no broker.
    """
    wanted = settings.vision
    kind, device = _DETECTORS[wanted.detector]
    return {
        "mqtt": mqtt(settings, name),
        "detector": {"type": kind, "device": device, "openvino": kind == "openvino"},
        "hwaccel": "preset-vaapi" if wanted.hardware_decoding == "vaapi" else "",
        "days": {
            "continuous": wanted.keep_continuous_days,
            "motion": wanted.keep_motion_days,
            "objects": wanted.keep_objects_days,
        },
        "cameras": [_camera(camera, data) for camera, data in wanted.cameras.items()],
    }


def _camera(name: str, camera: CameraSettings) -> dict[str, Any]:
    main = _with_login(name, camera, camera.url)
    if camera.detect_url is None:
        streams = [{"path": main, "roles": ["detect", "record"] if camera.record else ["detect"]}]
    else:
        streams = [{"path": _with_login(name, camera, camera.detect_url), "roles": ["detect"]}]
        if camera.record:
            streams.append({"path": main, "roles": ["record"]})
    return {
        "name": name,
        "streams": streams,
        "width": camera.width,
        "height": camera.height,
        "fps": camera.fps,
        "objects": list(camera.objects),
        "record": camera.record,
    }


def _with_login(name: str, camera: CameraSettings, url: str) -> str:
    """Return a stream's URL with a placeholder for user and password."""
    if camera.username is None:
        return url
    scheme, rest = url.split("://", 1)
    return f"{scheme}://{{{login_name(name)}}}@{rest}"


def login_name(camera: str) -> str:
    """Return the name of the secret that has a camera's user and password."""
    return f"FRIGATE_{camera.upper().replace('-', '_')}_LOGIN"


def secrets(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield each secret's name and content.

    Raises:
        DeployError: one can't be read.
    """
    wanted = settings.vision
    if wanted.mqtt_password_file is None:
        raise DeployError("vision.mqtt_password_file is not set: Frigate needs an account of its own at the broker")
    yield _MQTT_PASSWORD, _read(wanted.mqtt_password_file, "vision.mqtt_password_file")
    for name, camera in wanted.cameras.items():
        if camera.username is not None and camera.password_file is not None:
            password = _read(camera.password_file, f"vision.cameras.{name}.password_file")
            yield login_name(name), f"{quote(camera.username, safe='')}:{quote(password, safe='')}"


def _read(file: Path, setting: str) -> str:
    try:
        return read_secret(file)
    except SecretError as error:
        raise DeployError(f"{setting}: {error}") from error


def devices(settings: Settings) -> tuple[str, ...]:
    """Return the devices that the container gets."""
    wanted = settings.vision
    found = []
    if wanted.hardware_decoding == "vaapi" or wanted.detector == "openvino-gpu":
        found.append("/dev/dri/renderD128")
    if wanted.detector == "edgetpu-usb":
        found.append("/dev/bus/usb")
    if wanted.detector == "edgetpu-pci":
        found.append("/dev/apex_0")
    return tuple(found)


def shared_megabytes(settings: Settings) -> int:
    """Return the shared memory that the cameras' frames take, at least podman's usual 64 MB.

    A frame is YUV 4:2:0, one and a half bytes for each pixel, and 270,480 bytes for what Frigate notes of it:
    https://docs.frigate.video/frigate/installation#calculating-required-shm-size
    """
    frames = sum(camera.width * camera.height * 1.5 * _FRAMES + 270_480 for camera in settings.vision.cameras.values())
    return max(64, int(frames / 1_048_576 + 1)) + _LOG_MEGABYTES
