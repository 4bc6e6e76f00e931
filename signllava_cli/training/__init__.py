"""The training loop of pretrain and finetune, and the files of a run folder."""
