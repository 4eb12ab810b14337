"""What each command does, from a run directory, data and model names to artefacts and numbers; and what they share."""
