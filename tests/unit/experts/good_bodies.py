"""Good requests of an expert, to be mutated."""

from typing import Any

GOOD: tuple[dict[str, Any], ...] = (
    {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "x"}]},
            {
                "role": "assistant",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "r", "tool_call_id": "1"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": "d",
                    "parameters": {
                        "type": "object",
                        "properties": {"a": {"type": ["string", "null"]}, "b": {"$ref": "#/$defs/c"}},
                        "required": ["a"],
                        "$defs": {"c": {"anyOf": [{"enum": [1, "2"]}, {"type": "array", "items": {}}]}},
                    },
                },
            }
        ],
        "tool_choice": "auto",
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "integer"}}},
        "max_tokens": 4,
        "stop": ["a", "b"],
        "logit_bias": {"5": 1.0},
        "stream": False,
        "temperature": 0.5,
        "seed": 3,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "truncation": "auto",
        "reasoning_format": "auto",
        "chat_template_kwargs": {"enable_thinking": False},
        "repeat_last_n": 8,
        "prompt_cache_key": "k",
    },
    {
        "prompt": ["x", "y"],
        "max_tokens": 3,
        "stream": True,
        "top_p": 0.5,
        "stop": "z",
        "n": 2,
        "logprobs": 2,
        "grammar": 'root ::= ("a" | [b-d]{1,3})* # e',
    },
    {"input": ["a", "b"], "encoding_format": "float", "truncation": "auto"},
    {
        "query": "a",
        "documents": ["b", {"text": "c"}],
        "top_n": 1,
        "return_documents": True,
        "truncation": "disabled",
    },
)
