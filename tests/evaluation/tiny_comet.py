"""Makes a tiny, untrained COMET checkpoint in a folder, with the Python of the environment of `comet-score`."""

import sys
from pathlib import Path

import pytorch_lightning
import torch
import yaml
from comet.models import RegressionMetric
from sentencepiece import SentencePieceTrainer
from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

folder = Path(sys.argv[1])
encoder, checkpoint = folder / "encoder", folder / "tiny-comet" / "checkpoints" / "model.ckpt"
encoder.mkdir(parents=True)
checkpoint.parent.mkdir(parents=True)
SentencePieceTrainer.train(
    sentence_iterator=iter(["Today my sister buys the coat.", "Tonight, the lamp falls!"] * 20),
    model_prefix=str(folder / "pieces"),
    vocab_size=30,
    hard_vocab_limit=False,
    normalization_rule_name="identity",
)
tokenizer = XLMRobertaTokenizer(str(folder / "pieces.model"))
tokenizer.save_pretrained(encoder)
torch.manual_seed(1)
XLMRobertaModel(
    XLMRobertaConfig(
        vocab_size=len(tokenizer) + 2,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
        initializer_range=0.4,
    )
).save_pretrained(encoder)
hyper_parameters = {"encoder_model": "XLM-RoBERTa", "pretrained_model": str(encoder), "hidden_sizes": [16]}
metric = RegressionMetric(**hyper_parameters)
torch.save(
    {
        "state_dict": metric.state_dict(),
        "hyper_parameters": dict(metric.hparams),
        "pytorch-lightning_version": pytorch_lightning.__version__,
    },
    checkpoint,
)
(checkpoint.parent.parent / "hparams.yaml").write_text(
    yaml.safe_dump({**hyper_parameters, "class_identifier": "regression_metric"})
)
