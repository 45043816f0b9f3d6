"""The model catalogue, and the models folder of a node: download, verify, remove, advise."""
