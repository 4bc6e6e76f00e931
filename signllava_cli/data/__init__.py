"""From files to batches: annotations, feature streams, context, prompts, examples, batches."""
