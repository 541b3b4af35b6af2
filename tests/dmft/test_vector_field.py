"""Several outputs and general losses: one population against derivatives, identities and exact linear networks."""
