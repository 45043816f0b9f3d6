"""How much power this machine draws, as far as it can tell."""
