"""From image files and prompts to embeddings: sources, encoders, and the store that computes each only once."""
