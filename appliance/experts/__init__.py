"""Experts: one process serves one GGUF model over an OpenAI-compatible HTTP API.

One thread owns the llama.cpp context and steps every running request as one batch (continuous batching);
the event loop only parses requests and writes what that thread produced.
"""
