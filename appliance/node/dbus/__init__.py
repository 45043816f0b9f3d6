"""The machine's own services on D-Bus: logind and systemd."""
