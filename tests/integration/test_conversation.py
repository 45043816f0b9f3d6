from homeassistant.components import conversation
from homeassistant.core import Context, HomeAssistant

from fake_hub import AGENT, FakeHub, finished, text


async def test_streams_an_answer(hass: HomeAssistant, hub: FakeHub) -> None:
    hub.will_say(text("The light "), text("is on."), finished("The light is on."))

    result = await conversation.async_converse(hass, "Hello", None, Context(), agent_id=AGENT)

    assert result.response.speech["plain"]["speech"] == "The light is on."
