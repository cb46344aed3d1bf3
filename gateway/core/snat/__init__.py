"""Who goes out by which public IP and ports: plan, allocations, pools. Knows no flow."""
