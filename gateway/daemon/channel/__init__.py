"""What the daemon's processes say to each other: messages, and the contract's JSON of them."""
