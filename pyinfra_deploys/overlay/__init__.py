"""The overlay network: WireGuard among all machines of the house, with keys that never leave them, or Tailscale."""
