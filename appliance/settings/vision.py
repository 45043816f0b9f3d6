"""The house's cameras, which Frigate watches."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from appliance.settings.section import Name, Section, check_together, conflict

_URL_FORM = "expected rtsp://host[:port]/path or rtsps://…, without user and password: set username and password_file"
_IMAGE = re.compile(r"[a-z0-9.-]+(:\d+)?(/[a-z0-9._-]+)+(:[A-Za-z0-9._-]+)?(@sha256:[0-9a-f]{64})?")
_FOLDER = re.compile(r"/[A-Za-z0-9._/-]+")

FRIGATE_PORT = 8971
"""Port of Frigate's page, in the container and outside: it asks for a log-in and speaks TLS."""

Days = Annotated[float, Field(ge=0, le=3650, allow_inf_nan=False)]


class CameraSettings(Section):
    """One camera."""

    url: str
    """Its stream: `rtsp://host[:port]/path`. This one is recorded."""
    detect_url: str | None = None
    """A smaller stream of the same camera to find objects in; `url` when not set. It saves much of the processor."""
    username: str | None = None
    """User at the camera."""
    password_file: Path | None = None
    """File, on the machine that deploys, whose first line is the password at the camera."""
    width: Annotated[int, Field(ge=64, le=8192)] = 1280
    """Width in pixels of the frames in which objects are looked for."""
    height: Annotated[int, Field(ge=64, le=8192)] = 720
    """Their height."""
    fps: Annotated[int, Field(ge=1, le=30)] = 5
    """How many of them a second. Five find whoever walks by; more cost and bring little."""
    objects: tuple[Annotated[str, Field(pattern="^[a-z][a-z _]{0,30}$")], ...] = ("person",)
    """What is looked for, by the names of the COCO data set: `person`, `car`, `dog`, `cat`."""
    record: bool = True
    """Whether what happens is kept as a video."""

    @field_validator("url", "detect_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise ValueError(_URL_FORM) from None
        # Braces and white space would mean something to Frigate's configuration.
        plain = url.isascii() and url.isprintable() and not set(url) & set(" {}\"'\\")
        if parts.scheme not in {"rtsp", "rtsps"} or not parts.hostname or port == 0 or "@" in parts.netloc or not plain:
            raise ValueError(_URL_FORM)
        return url

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        check_together("username", self.username, "password_file", self.password_file)
        return self


class VisionSettings(Section):
    """Frigate in a container, on machines with the role `vision`; see docs/vision.md."""

    image: str = "ghcr.io/blakeblackshear/frigate:0.17.2"
    """The container's image. With `@sha256:…` behind it nothing but that very image is run."""
    cameras: Mapping[Name, CameraSettings] = Field(default_factory=dict)
    """The cameras, by name."""
    detector: Literal["cpu", "openvino", "openvino-gpu", "edgetpu-usb", "edgetpu-pci"] = "openvino"
    """What looks for objects: OpenVINO on the processor (any of the last ten years) or on Intel's graphics, a Coral
    Edge TPU, or TensorFlow Lite on the processor, which is the slowest."""
    hardware_decoding: Literal["none", "vaapi"] = "none"
    """Whether the graphics processor (Intel, AMD) decodes the streams. It must have a `/dev/dri/renderD128`."""
    media: Path = Path("/var/lib/rouse-vision/media")
    """Folder of recordings and snapshots. Give it a disk of its own if it is to hold more than a few days."""
    keep_continuous_days: Days = 0
    """For how many days everything is kept. A camera of 4 Mbit/s fills 43 GB a day."""
    keep_motion_days: Days = 3
    """For how many days what moved is kept."""
    keep_objects_days: Days = 14
    """For how many days scenes with a known object are kept, and snapshots."""
    mqtt_url: str | None = None
    """`mqtt://host[:port]` or `mqtts://host[:port]` of the broker; `broker.url` when not set."""
    mqtt_username: str = "frigate"
    """Frigate's own account at the broker; it needs `frigate/#` and nothing else."""
    mqtt_password_file: Path | None = None
    """File, on the machine that deploys, whose first line is that account's password."""
    mqtt_ca_file: Path | None = None
    """CA certificates (PEM) on the machine itself that the broker's certificate is checked against; `broker.ca_file`
    when not set."""

    @field_validator("image")
    @classmethod
    def _check_image(cls, image: str) -> str:
        if _IMAGE.fullmatch(image) is None:
            raise ValueError("expected an image with its registry, such as ghcr.io/blakeblackshear/frigate:0.17.2")
        return image

    @field_validator("media", "mqtt_ca_file")
    @classmethod
    def _check_path(cls, path: Path | None) -> Path | None:
        if path is not None and (_FOLDER.fullmatch(str(path)) is None or ".." in path.parts):
            raise ValueError("expected an absolute path of letters, digits and ._-, as it becomes part of a unit")
        return path

    @field_validator("mqtt_url")
    @classmethod
    def _check_mqtt_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            good = parts.scheme in {"mqtt", "mqtts"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or "@" in url or parts.path.strip("/"):
            raise ValueError("expected mqtt://host or mqtts://host, with :port where it is not the usual one")
        return url

    @field_validator("mqtt_username")
    @classmethod
    def _check_username(cls, name: str) -> str:
        if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name) is None:
            raise ValueError("expected letters, digits and ._-")
        return name

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if len({name.replace("-", "_") for name in self.cameras}) != len(self.cameras):
            raise conflict("cameras", "two cameras have names that differ by - and _ only")
        return self
