"""The house's MQTT broker: Debian's mosquitto beside the hub, with TLS for nodes, and access by account."""
