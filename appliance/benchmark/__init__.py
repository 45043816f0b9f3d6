"""Load tests of anything that speaks OpenAI's streaming chat API: an expert, the gateway, another server."""
