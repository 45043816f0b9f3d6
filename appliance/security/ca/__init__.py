"""The house's own certificate authority: who is who between machines."""
