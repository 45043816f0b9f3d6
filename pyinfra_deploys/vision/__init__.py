"""Vision: Frigate in a container, as a quadlet of podman's, with its configuration from the settings."""
