"""A real house on this machine: Home Assistant, a broker and the appliance, for the demo and the tests."""
