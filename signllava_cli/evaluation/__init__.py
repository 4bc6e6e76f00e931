"""Scores of predictions, each with the signature that makes it comparable."""
