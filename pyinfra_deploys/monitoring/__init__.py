"""Monitoring: Prometheus, alert rules and Grafana on the hub, a node exporter on each machine."""
