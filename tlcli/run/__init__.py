"""From a question to a result: merging of settings, execution, files."""
