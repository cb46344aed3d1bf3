"""What a changed configuration does to live flows, and how it is reported."""
