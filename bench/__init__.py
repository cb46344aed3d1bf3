"""The benchmark: what the gateway costs, next to the kernel and to a bare NFQUEUE loop.

Not part of the package: ``scripts/bench`` runs it from the repository. docs/benchmarks.md says what
each figure means. Every load is bounded in time and count; every namespace made is removed.
"""
