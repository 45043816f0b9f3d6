from tests.unit.gateway.conftest import gateway, start

__all__ = ["gateway", "start"]
