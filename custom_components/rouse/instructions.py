"""What the user told an agent, apart from what Home Assistant adds for every agent."""

from homeassistant.components import conversation
from homeassistant.core import HomeAssistant
from homeassistant.helpers import llm, template


async def async_own_instructions(
    hass: HomeAssistant, prompt: str | None, llm_context: llm.LLMContext, chat_log: conversation.ChatLog
) -> str:
    """Return the prompt option, rendered as in the system message, and what the caller of the conversation added.

    Args:
        hass: Home Assistant.
        prompt: The prompt option, a template. Home Assistant's default says nothing of the user's own.
        llm_context: Of the conversation.
        chat_log: Of the conversation, with its system message; so the template is known to render.
    """
    parts = []
    if prompt and prompt.strip() != llm.DEFAULT_INSTRUCTIONS_PROMPT.strip():
        variables = {
            "ha_name": hass.config.location_name,
            "user_name": await _user_name(hass, llm_context),
            "llm_context": llm_context,
        }
        parts.append(template.Template(prompt, hass).async_render(variables, parse_result=False))
    if chat_log.extra_system_prompt:
        parts.append(chat_log.extra_system_prompt)
    return "\n".join(parts)


async def _user_name(hass: HomeAssistant, llm_context: llm.LLMContext) -> str | None:
    user_id = llm_context.context.user_id if llm_context.context else None
    user = await hass.auth.async_get_user(user_id) if user_id else None
    return user.name if user else None
