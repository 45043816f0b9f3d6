"""Which expert should answer."""
