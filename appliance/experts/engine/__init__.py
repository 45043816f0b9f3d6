"""Continuous batching: which requests run, what a step computes, whose cells are shared."""
