"""Discriminant transfer: one linear classifier from what all models together say of unlabelled images."""
