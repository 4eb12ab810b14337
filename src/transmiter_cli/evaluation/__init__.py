"""Every model that given parts allow, measured side by side: on tensors, with or without labels."""
