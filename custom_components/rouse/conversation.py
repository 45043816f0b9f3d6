"""An Assist conversation agent for each of the hub's agents."""

import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Literal

from homeassistant.components import conversation
from homeassistant.const import CONF_LLM_HASS_API, CONF_PROMPT, CONF_TIMEOUT, MATCH_ALL
from homeassistant.core import HomeAssistant, callback
from homeassistant.helpers import llm
from homeassistant.helpers.device_registry import DeviceInfo
from homeassistant.helpers.entity_platform import AddConfigEntryEntitiesCallback
from homeassistant.util.ulid import ulid_now

from .chat import ask
from .const import DEFAULT_TIMEOUT, DOMAIN, MAX_TOOL_ITERATIONS
from .devices import hub_identifier
from .dialogue import messages_from, tools_from
from .entity import RouseEntity, async_track_entities
from .errors import ChatError
from .exposure import async_exposed_entities
from .hub import Hub, RouseConfigEntry, agent_key
from .instructions import async_own_instructions
from .messages import AgentAnnouncement, ChatRequest
from .replies import Piece

PARALLEL_UPDATES = 0


async def async_setup_entry(
    hass: HomeAssistant, entry: RouseConfigEntry, async_add_entities: AddConfigEntryEntitiesCallback
) -> None:
    """Add a conversation entity for each agent."""

    def agents(hub: Hub) -> Iterator[RouseConversationEntity]:
        for announcement in hub.agents.values():
            yield RouseConversationEntity(hub, entry, announcement)

    async_track_entities(hass, entry, async_add_entities, agents)


class RouseConversationEntity(RouseEntity, conversation.ConversationEntity):
    """Answers with an agent of the hub."""

    _attr_supports_streaming = True

    def __init__(self, hub: Hub, entry: RouseConfigEntry, agent: AgentAnnouncement) -> None:
        super().__init__(hub, agent_key(agent.agent), agent_key(agent.agent))
        self._agent = agent
        self._options = entry.options
        self._attr_device_info = DeviceInfo(identifiers={hub_identifier(hub)})
        self._adopt(agent)

    @property
    def exists(self) -> bool:
        """Whether the agent is announced."""
        return self._agent.agent in self.hub.agents

    @property
    def available(self) -> bool:
        """Whether the hub is there."""
        return self.hub.online

    @property
    def supported_languages(self) -> list[str] | Literal["*"]:
        """The languages the agent answers in."""
        return MATCH_ALL if MATCH_ALL in self._agent.languages else list(self._agent.languages)

    @property
    def _llm_apis(self) -> list[str]:
        return self._options.get(CONF_LLM_HASS_API, []) if self._agent.control else []

    def _adopt(self, agent: AgentAnnouncement) -> None:
        self._agent = agent
        self._attr_name = agent.name or agent.agent
        self._attr_supported_features = (
            conversation.ConversationEntityFeature.CONTROL
            if self._llm_apis
            else conversation.ConversationEntityFeature(0)
        )

    @callback
    def _changed(self) -> None:
        if agent := self.hub.agents.get(self._agent.agent):
            self._adopt(agent)
        super()._changed()

    async def _async_handle_message(
        self, user_input: conversation.ConversationInput, chat_log: conversation.ChatLog
    ) -> conversation.ConversationResult:
        if trouble := self.hub.trouble:
            raise ChatError(trouble)
        llm_context = user_input.as_llm_context(DOMAIN)
        prompt: str | None = self._options.get(CONF_PROMPT)
        try:
            await chat_log.async_provide_llm_data(llm_context, self._llm_apis, prompt, user_input.extra_system_prompt)
        except conversation.ConverseError as error:
            return error.as_conversation_result()
        instructions = await async_own_instructions(self.hass, prompt, llm_context, chat_log)
        for _ in range(MAX_TOOL_ITERATIONS):
            await self._async_ask(user_input, chat_log, instructions)
            if not chat_log.unresponded_tool_results:
                return conversation.async_get_result_from_chat_log(user_input, chat_log)
        raise ChatError("too_many_tool_calls")

    async def _async_ask(
        self, user_input: conversation.ConversationInput, chat_log: conversation.ChatLog, instructions: str
    ) -> None:
        limit: float = self._options.get(CONF_TIMEOUT, DEFAULT_TIMEOUT)
        request = self._request(user_input, chat_log, instructions, time.time() + limit)
        async with aclosing(ask(self.hub.chat, self._agent.agent, request, time_limit=limit)) as pieces:
            deltas = _transform_stream(pieces, tools_offered=chat_log.llm_api is not None)
            async for _ in chat_log.async_add_delta_content_stream(self.entity_id, deltas):
                pass

    def _request(
        self,
        user_input: conversation.ConversationInput,
        chat_log: conversation.ChatLog,
        instructions: str,
        deadline: float,
    ) -> ChatRequest:
        api = chat_log.llm_api
        language = user_input.language.replace("_", "-")
        return ChatRequest(
            id=ulid_now(),
            client=self.hub.chat.client,
            deadline=deadline,
            conversation_id=chat_log.conversation_id[:128],
            language=language if re.fullmatch(r"[A-Za-z0-9-]{1,35}", language) else "en",
            instructions=instructions,
            messages=tuple(messages_from(chat_log.content)),
            tools=tools_from(api) if api else (),
            entities=async_exposed_entities(self.hass, api.llm_context.assistant) if api else (),
        )


async def _transform_stream(
    pieces: AsyncGenerator[Piece], *, tools_offered: bool
) -> AsyncGenerator[conversation.AssistantContentDeltaDict]:
    yield {"role": "assistant"}
    async for piece in pieces:
        if isinstance(piece, str):
            yield {"content": piece}
        elif tools_offered:
            call = llm.ToolInput(tool_name=piece.name, tool_args=piece.arguments, id=piece.id)
            yield {"tool_calls": [call]}
        else:
            raise ChatError("unexpected_tool_call")
