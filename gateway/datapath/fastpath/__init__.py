"""The fast path: the engine's decisions about live flows, carried out by eBPF on tc ingress.

It knows five-tuples and what replaces what; who decided that, and why, it never learns.
"""

from gateway.datapath.fastpath.offload import FastPath
from gateway.datapath.fastpath.records import Direction, Report

__all__ = ["Direction", "FastPath", "Report"]
