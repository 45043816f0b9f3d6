"""What is tried when a machine is missing, one rung after another."""
