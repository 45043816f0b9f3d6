"""The services' users, and the groups of those who share something."""

from dataclasses import dataclass

SETTINGS_GROUP = "rouse"


@dataclass(frozen=True, slots=True)
class SharedGroup:
    """A group; its number is fixed for the same reason as a user's."""

    name: str
    number: int
    shares: str


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """A user that one service runs as.

    The number is fixed, so that files on an image's data partition keep their
    owner when the next image counts users another way; where it is taken, the system chooses another.
    """

    name: str
    number: int
    title: str
    groups: tuple[str, ...] = ()


SHARED_GROUPS = (
    SharedGroup(SETTINGS_GROUP, 810, "the settings, with the secrets that are in them"),
    SharedGroup("rouse-bus", 815, "the appliance's own account at the broker"),
    SharedGroup("rouse-expert-key", 816, "the key that experts are asked with"),
    SharedGroup("rouse-pairing", 817, "the pairing code"),
)
SERVICE_USERS = (
    ServiceUser("rouse-hub", 811, "Rouse hub", (SETTINGS_GROUP, "rouse-bus", "rouse-expert-key")),
    ServiceUser("rouse-node", 812, "Rouse node daemon", (SETTINGS_GROUP, "rouse-bus", "rouse-expert-key")),
    ServiceUser("rouse-expert", 813, "Rouse experts", ("rouse-expert-key",)),
    ServiceUser("rouse-console", 814, "Rouse status screen", (SETTINGS_GROUP, "rouse-pairing")),
)
