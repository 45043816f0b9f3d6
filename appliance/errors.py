"""Errors that end a process with one clear line."""


class StartError(Exception):
    """The process can't start; the message says why and what to do."""
