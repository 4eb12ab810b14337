"""One module per command: from a run directory, data and model names to artefacts and numbers."""
