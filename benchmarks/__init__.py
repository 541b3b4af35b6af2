"""Speed of tlcli against the alternatives: `python -m benchmarks` prints one table."""
