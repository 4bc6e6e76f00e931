"""From a checkpoint to hypotheses: decoding a batch, the order of clips, the predictions file."""
