"""From chats to prompts, and from tokens to text and tool calls."""
