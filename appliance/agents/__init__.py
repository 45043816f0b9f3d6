"""Personas that answer chat requests from the bus."""
