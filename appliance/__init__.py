"""Rouse: local AI experts for Home Assistant that sleep until they are needed."""

__version__ = "0.1.0"
