"""The checks, one module for each part of a machine. Each is a function from a dump, and what is wanted, to results."""
