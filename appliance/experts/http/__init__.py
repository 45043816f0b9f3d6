"""The OpenAI-compatible HTTP API of an expert."""
