"""The models that a machine's experts serve: copied from this machine, or downloaded there by the catalogue."""
