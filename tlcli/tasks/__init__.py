"""Source and target tasks: synthetic teachers and real data."""
