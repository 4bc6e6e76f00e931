"""BLEURT-20 (Pu et al. 2021), a learned metric, from a local copy of its checkpoint.

Its network is RemBERT with one output, so the checkpoint is loaded into RemBERT of transformers. The tokenizer needs
the package sentencepiece (the extra `bleurt`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from signllava_cli.console import progress, warning
from signllava_cli.errors import UserError, format_count, require_extra, summarize_names
from signllava_cli.evaluation.metrics.base import SentenceMeanMetric
from signllava_cli.evaluation.metrics.presets import Preset
from signllava_cli.files import read_json, sha256_file

if TYPE_CHECKING:
    from torch import Tensor

BATCH_SIZE = 32
TOKENIZER_FILES = ("spm.model", "sent_piece.model")  # names in the PyTorch and in Google's checkpoints
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
CLS, SEP = "[CLS]", "[SEP]"
# Two pairs, and their scores in the model cards of the published checkpoints (lucadiliello/BLEURT-20 and smaller).
CONTROL_REFERENCES = ["a bird chirps by the window", "this is a random sentence"]
CONTROL_HYPOTHESES = ["a bird chirps by the window", "this looks like a random sentence"]
PUBLISHED_SCORES = {
    "BLEURT-20": (0.9990, 0.7930),
    "BLEURT-20-D12": (0.9604, 0.8080),
    "BLEURT-20-D6": (0.9637, 0.7895),
    "BLEURT-20-D3": (0.9515, 0.8010),
}
TOLERANCE = 2e-3


@dataclass(frozen=True)
class EncodedPair:
    """The token ids of [CLS] reference [SEP] hypothesis [SEP], and how many of them end with the first [SEP]."""

    ids: list[int]
    num_reference_tokens: int


class Bleurt(SentenceMeanMetric):
    """Mean BLEURT, times 100, of a local checkpoint; on the GPU, if there is one.

    On loading, it scores the two control pairs whose scores are in the model cards of the published checkpoints. The
    signature has the name of the checkpoint with these scores, or says that there is none.

    Args:
        folder: the checkpoint: config.json, the weights (safetensors, or a PyTorch file of tensors), the tokenizer.

    Raises:
        UserError: a file is missing, the files do not fit together, or sentencepiece is not installed.
    """

    labels: ClassVar = {"bleurt": "BLEURT"}

    def __init__(self, folder: Path, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self._tokenizer = _load_tokenizer(folder)
        self._network, self._hash = _load_network(folder)
        scores = self._score_pairs(self._encode_pairs(CONTROL_HYPOTHESES, CONTROL_REFERENCES))
        self._published_name = next(
            (name for name, control in PUBLISHED_SCORES.items() if np.allclose(scores, control, atol=TOLERANCE)), None
        )
        if self._published_name is None:
            warning(
                f"--bleurt {folder} scores two control pairs {scores[0]:.4f} and {scores[1]:.4f}, unlike every "
                "published BLEURT-20: do not compare its scores with those of papers."
            )

    def score_sentences(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """The output of the network for each pair: float64 (N,)."""
        with progress("BLEURT", len(hypotheses)) as line:
            return self._score_pairs(self._encode_pairs(hypotheses, references), line.advance)

    @property
    def signature(self) -> str:
        """The checkpoint: its name, recognized by its scores, and the hash of its weights."""
        name = self._published_name or "none that is published"
        return f"bleurt|checkpoint:{name}|weights:{self._hash}|transformers:{version('transformers')}"

    def _encode_pairs(self, hypotheses: Sequence[str], references: Sequence[str]) -> list[EncodedPair]:
        """The input of the network. As in BLEURT, the longer text of a pair that is too long is truncated first."""
        pairs, num_truncated = [], 0
        max_tokens = self._network.config.max_position_embeddings - 3
        cls_id, sep_id = (self._tokenizer.piece_to_id(token) for token in (CLS, SEP))
        encoded = zip(*map(self._tokenizer.encode, (list(hypotheses), list(references))), strict=True)
        for hypothesis, reference in encoded:
            num_truncated += len(reference) + len(hypothesis) > max_tokens
            while len(reference) + len(hypothesis) > max_tokens:
                (reference if len(reference) > len(hypothesis) else hypothesis).pop()
            pairs.append(EncodedPair([cls_id, *reference, sep_id, *hypothesis, sep_id], len(reference) + 2))
        if num_truncated:
            count = format_count(num_truncated, "pair is longer, and was", "pairs are longer, and were")
            warning(f"BLEURT reads at most {max_tokens} tokens: {count} truncated.")
        return pairs

    def _score_pairs(
        self, pairs: Sequence[EncodedPair], advance: Callable[[int], None] = lambda _: None
    ) -> np.ndarray:
        """The score of each pair: float64 (N,). Pairs of similar length share a batch."""
        import torch

        scores = np.zeros(len(pairs))
        order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index].ids))
        with torch.inference_mode():
            for start in range(0, len(order), BATCH_SIZE):
                indices = order[start : start + BATCH_SIZE]
                logits = self._network(**self._pad_batch([pairs[index] for index in indices])).logits  # (B, 1)
                scores[indices] = logits[:, 0].double().cpu().numpy()
                advance(len(indices))
        return scores

    def _pad_batch(self, pairs: Sequence[EncodedPair]) -> "dict[str, Tensor]":
        """The arguments of the network, each int64 (B, L)."""
        import torch

        max_len = max(len(pair.ids) for pair in pairs)
        batch = torch.zeros(3, len(pairs), max_len, dtype=torch.long)  # (3, B, L)
        batch[0] = self._network.config.pad_token_id
        for row, pair in enumerate(pairs):
            batch[0, row, : len(pair.ids)] = torch.tensor(pair.ids)
            batch[1, row, : len(pair.ids)] = 1
            batch[2, row, pair.num_reference_tokens : len(pair.ids)] = 1
        names = ("input_ids", "attention_mask", "token_type_ids")
        return dict(zip(names, batch.to(self._network.device), strict=True))


def _load_tokenizer(folder: Path) -> Any:
    require_extra("bleurt", "--bleurt", "sentencepiece")
    from sentencepiece import SentencePieceProcessor

    file = _first_existing(folder, TOKENIZER_FILES)
    try:
        tokenizer = SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError, TypeError) as error:
        raise UserError(f"{file} is not a valid sentencepiece model: {error}.") from None
    if unknown := [token for token in (CLS, SEP) if tokenizer.piece_to_id(token) == tokenizer.unk_id()]:
        raise UserError(f"{file} has no token {' or '.join(unknown)}: not the tokenizer of BLEURT-20.")
    return tokenizer


def _load_network(folder: Path) -> tuple[Any, str]:
    """RemBERT with the weights in `folder`, and the first 8 hex digits of their SHA-256."""
    import torch
    from transformers import RemBertConfig, RemBertForSequenceClassification

    from signllava_cli.model.sign_llava_file import load_tensors

    config = read_json(folder / "config.json")
    file = _first_existing(folder, WEIGHT_FILES)
    if config.get("model_type") != "bleurt" or not config.get("embedding_size"):
        raise UserError(f"--bleurt {folder}: config.json is not that of a BLEURT-20 checkpoint.")
    rembert_config = RemBertConfig(**{**config, "input_embedding_size": config["embedding_size"], "num_labels": 1})
    network = RemBertForSequenceClassification(rembert_config).eval()
    tensors = {_to_rembert_name(name): tensor for name, tensor in load_tensors(file).items()}
    expected = network.state_dict().keys()
    if missing := sorted(expected - tensors.keys()):
        count = format_count(len(missing), "tensor of BLEURT-20 is", "tensors of BLEURT-20 are")
        raise UserError(f"{file}: {count} missing ({summarize_names(missing)}).")
    try:
        network.load_state_dict({name: tensors[name] for name in expected})
    except RuntimeError as error:
        raise UserError(f"{file} does not fit config.json: {str(error).splitlines()[-1].strip()}") from None
    return network.to("cuda" if torch.cuda.is_available() else "cpu"), sha256_file(file)[:8]


def _to_rembert_name(name: str) -> str:
    """The name in transformers' RemBERT of a tensor of BLEURT."""
    return name.replace("bleurt.", "rembert.", 1).replace("embedding_projection", "embedding_hidden_mapping_in")


def _first_existing(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"--bleurt {folder} has no {' or '.join(names)}; name a local copy of the Hugging Face repository "
        "lucadiliello/BLEURT-20."
    )
