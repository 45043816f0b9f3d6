"""When machines sleep and wake, and what that saves."""
