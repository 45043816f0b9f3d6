"""How many threads, and how much prefill in a step: measured once for each machine and model, and remembered."""
