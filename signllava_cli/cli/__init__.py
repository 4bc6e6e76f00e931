"""One small file per command. Nothing here imports torch when it is imported."""
