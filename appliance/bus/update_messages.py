"""Messages about updates of machines that run the image: what a node says, and what it is asked for."""

from typing import Annotated, Literal

from pydantic import StringConstraints

from appliance.bus.messages import Fraction, Message, RequestId, UnixTime

ImageVersion = Annotated[str, StringConstraints(pattern=r"^[0-9][0-9A-Za-z.~]{0,23}$")]
Explanation = Annotated[str, StringConstraints(max_length=1000)]
NotesUrl = Annotated[str, StringConstraints(pattern=r"^https?://\S{1,500}$")]

UpdateState = Literal[
    "idle", "checking", "downloading", "installing", "rebooting", "verifying", "rolled_back", "failed"
]


class NodeUpdate(Message):
    """The image that a node runs, and what becomes of the next one."""

    installed: ImageVersion
    """What runs now."""
    latest: ImageVersion | None = None
    """The newest version that there is for it, `installed` if none is newer; None where nobody has looked yet."""
    state: UpdateState
    """`rolled_back` and `failed` last until the next attempt."""
    version: ImageVersion | None = None
    """What is being installed, or was not."""
    previous: ImageVersion | None = None
    """What is in the other slot, and can be gone back to."""
    progress: Fraction | None = None
    """Of the whole update, from the first byte to a healthy start."""
    detail: Explanation = ""
    """One sentence for people: what it does, or waits for."""
    error: Explanation | None = None
    notes_url: NotesUrl | None = None
    """Where people read about `latest`."""
    checked: UnixTime | None = None
    """When it was last looked for updates."""
    command: RequestId | None = None
    """The last command that was taken."""


class UpdateCommand(Message):
    """A wish for a node's image. A command that is delivered twice is carried out once."""

    id: RequestId
    action: Literal["check", "install", "rollback"]
    version: ImageVersion | None = None
    """Of `install`: which one; the newest when not set."""
    downgrade: bool = False
    """Of `install`: whether `version` may be older than what runs."""
