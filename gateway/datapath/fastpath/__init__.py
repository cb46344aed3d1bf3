"""The fast path: the engine's decisions about live flows, carried out by eBPF on tc ingress.

It knows five-tuples and what replaces what; who decided that, and why, it never learns.
"""

from gateway.datapath.fastpath.fast_path import FastPath
from gateway.datapath.fastpath.map_layout import Direction, Report

__all__ = ["Direction", "FastPath", "Report"]
