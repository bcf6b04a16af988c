"""The faults that scripts/soak puts into jobs, and what it takes to run them."""
