"""What the host's own netfilter rules do with a gateway's packets: read, walked, named."""
