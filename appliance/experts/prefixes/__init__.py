"""Prompt prefixes that are not computed twice: in KV cells, in memory, on disk."""
