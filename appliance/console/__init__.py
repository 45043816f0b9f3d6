"""The status screen of a machine without a keyboard and without a shell."""
