"""Classification by a readout on a frozen kernel, averaged over data exactly for D → ∞ (docs/averages.md)."""
