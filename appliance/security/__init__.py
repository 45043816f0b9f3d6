"""Identities and secrets."""
