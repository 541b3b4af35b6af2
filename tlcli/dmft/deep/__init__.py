"""Networks of several hidden layers: the two-stage mean-field dynamics with memory (paper, Appendix B)."""
