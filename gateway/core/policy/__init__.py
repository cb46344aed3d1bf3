"""Network security groups, and which addresses are inside, outside or neither."""
