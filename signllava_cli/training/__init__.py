"""The loop behind pretrain and finetune, and what it leaves in the run folder."""
