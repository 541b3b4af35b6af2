"""Mean-field dynamics of networks that learn features: nonlinear two-layer networks of infinite width."""
