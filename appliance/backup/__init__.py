"""Backups of the machine's state: a consistent copy, encrypted and kept by restic, and the way back."""
