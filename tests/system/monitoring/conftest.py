import importlib.util

# A node has no pyinfra: machines are deployed from a checkout, with its development tools.
collect_ignore_glob = [] if importlib.util.find_spec("pyinfra") else ["test_*.py"]
