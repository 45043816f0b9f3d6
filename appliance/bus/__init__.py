"""MQTT: topics, message models, client and embedded broker."""
