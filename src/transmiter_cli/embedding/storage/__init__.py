"""The cache on the disk: embeddings by what was encoded, and fingerprints of what image files hold."""
