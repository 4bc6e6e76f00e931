"""From a checkpoint to hypotheses: the decoder, context sources, the scheduling of clips, the predictions folder."""
