"""Ways to measure a point: in this process, through a server, operation by operation."""
