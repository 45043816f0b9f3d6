"""What runs on every machine."""
