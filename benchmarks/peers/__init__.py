"""Other simulators on the common workload, beside this one: ``make bench-peers``."""
