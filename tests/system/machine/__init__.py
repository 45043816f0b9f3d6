"""A machine's own services for tests: a real dbus-daemon, and logind and systemd as the node sees them."""
