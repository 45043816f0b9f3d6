"""Rouse itself: program, settings, folders, permissions, and units that are each in a sandbox of their own."""
