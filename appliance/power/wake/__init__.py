"""Wakes machines: magic packets, one wake at a time for each, and what asks for it."""
