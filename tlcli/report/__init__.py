"""Tables, figures and provenance: the only code besides the store that writes files."""
