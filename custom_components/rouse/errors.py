"""The errors that users hear and see."""

from homeassistant.exceptions import HomeAssistantError

from .const import DOMAIN


class ChatError(HomeAssistantError):
    """A question stays without an answer; the text of `reason` in strings.json is spoken."""

    def __init__(self, reason: str) -> None:
        super().__init__(translation_domain=DOMAIN, translation_key=reason)


class UpdateCommandError(HomeAssistantError):
    """A node can't be asked to update; the text of `reason` in strings.json says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(translation_domain=DOMAIN, translation_key=reason)
