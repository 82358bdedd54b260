"""dbqueue beside its peers: the same jobs, counted in the same way. ``docs/benchmarks.md`` says how each is configured.

A peer is a folder: its ``__init__`` declares it and imports nothing of it, so that the command can say what is missing;
its ``jobs`` are what its worker loads and what puts jobs in, always in a process of its own.
"""
