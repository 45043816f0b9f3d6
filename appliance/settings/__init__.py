"""One typed settings tree from files and environment."""
