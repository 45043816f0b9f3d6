"""How the machine sleeps and is woken: network cards that listen for magic packets, what logind and systemd allow."""
