"""Converges machines to their settings: a live node over SSH, this machine, or a root file system in a folder.

Each part of the site is a package of its own with one deploy; `site.py` says which parts a machine gets.
pyinfra runs in a process of its own (`python -m pyinfra_deploys`), because gevent changes how a whole process waits.
"""
