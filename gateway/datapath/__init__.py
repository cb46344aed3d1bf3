"""NFQUEUE, netfilter rules, interfaces: how packets get to the engine. Knows nothing of Azure."""
