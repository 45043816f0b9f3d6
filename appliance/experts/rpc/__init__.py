"""One model over several machines: the worker that lends its processor and memory, and the expert's side of it.

ggml's RPC protocol has neither authentication nor encryption, and its server trusts what it reads. So a worker
listens on loopback or in a private overlay network only; docs/distributed.md says more.
"""
