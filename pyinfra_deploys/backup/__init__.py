"""Backup: restic, a timer that backs the machine's state up each night, and one that verifies it each week."""
