"""BLEURT-20 (Pu et al. 2021), a learned metric, from a local copy of its checkpoint.

Its network is RemBERT with one output; transformers has RemBERT, so the checkpoint is read into that. The pieces of
its text come from the package sentencepiece (the extra `bleurt`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from signllava_cli.console import progress, warning
from signllava_cli.errors import UserError, require_extra, summarize_names
from signllava_cli.evaluation.metrics.base import SentenceMean
from signllava_cli.evaluation.metrics.presets import Preset
from signllava_cli.files import read_json, sha256_file

if TYPE_CHECKING:
    from torch import Tensor

PAIRS_AT_ONCE = 32
PIECE_FILES = ("spm.model", "sent_piece.model")  # of the PyTorch checkpoints, of Google's
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
OPENING, CLOSING = "[CLS]", "[SEP]"
# What the cards of the published checkpoints (lucadiliello/BLEURT-20 and its smaller kin) say that two pairs score.
CONTROL_REFERENCES = ["a bird chirps by the window", "this is a random sentence"]
CONTROL_HYPOTHESES = ["a bird chirps by the window", "this looks like a random sentence"]
PUBLISHED = {
    "BLEURT-20": (0.9990, 0.7930),
    "BLEURT-20-D12": (0.9604, 0.8080),
    "BLEURT-20-D6": (0.9637, 0.7895),
    "BLEURT-20-D3": (0.9515, 0.8010),
}
TOLERANCE = 2e-3


@dataclass(frozen=True)
class EncodedPair:
    """[CLS] reference [SEP] hypothesis [SEP] as ids of pieces; those to the first [SEP] are counted."""

    ids: list[int]
    of_reference: int


class Bleurt(SentenceMean):
    """Mean BLEURT, times 100, under the checkpoint in a local folder; on the GPU, if there is one.

    At the start it scores the two pairs whose BLEURT the cards of the published checkpoints give, and says in its
    signature which checkpoint that makes it, or that it is none of them.

    Args:
        folder: with config.json, the weights (safetensors, or a PyTorch file of tensors alone) and the pieces.

    Raises:
        UserError: the folder lacks one of these, they do not fit, or sentencepiece is not installed.
    """

    labels: ClassVar = {"bleurt": "BLEURT"}

    def __init__(self, folder: Path, preset: Preset | None = None) -> None:
        super().__init__(preset)
        self._pieces = _load_tokenizer(folder)
        self._network, self._hash = _load_network(folder)
        found = self._scored(self._pairs(CONTROL_HYPOTHESES, CONTROL_REFERENCES))
        self._known_as = next(
            (name for name, control in PUBLISHED.items() if np.allclose(found, control, atol=TOLERANCE)), None
        )
        if self._known_as is None:
            warning(
                f"--bleurt {folder} scores two control pairs {found[0]:.4f} and {found[1]:.4f}, as no published "
                "BLEURT-20 does: its figures cannot be compared with those of papers."
            )

    def of_clips(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """What the network says to reference and hypothesis."""
        with progress("BLEURT", len(hypotheses)) as line:
            return self._scored(self._pairs(hypotheses, references), line.advance)

    @property
    def signature(self) -> str:
        """The checkpoint: its name, known by what it scores, and the hash of its weights."""
        name = self._known_as or "none that is published"
        return f"bleurt|checkpoint:{name}|weights:{self._hash}|transformers:{version('transformers')}"

    def _pairs(self, hypotheses: Sequence[str], references: Sequence[str]) -> list[EncodedPair]:
        """Each pair as the network reads it: of one that is too long, the longer text loses its end, as in BLEURT."""
        pairs, cut = [], 0
        room = self._network.config.max_position_embeddings - 3
        opening, closing = (self._pieces.piece_to_id(piece) for piece in (OPENING, CLOSING))
        for said, meant in zip(*map(self._pieces.encode, (list(hypotheses), list(references))), strict=True):
            cut += len(meant) + len(said) > room
            while len(meant) + len(said) > room:
                (meant if len(meant) > len(said) else said).pop()
            pairs.append(EncodedPair([opening, *meant, closing, *said, closing], len(meant) + 2))
        if cut:
            warning(f"BLEURT reads {room} pieces at most: {cut} pairs are longer, and were cut.")
        return pairs

    def _scored(self, pairs: Sequence[EncodedPair], advance: Callable[[int], None] = lambda _: None) -> np.ndarray:
        """The score of each pair; those of like length share a batch."""
        import torch

        scores = np.zeros(len(pairs))
        order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index].ids))
        with torch.inference_mode():
            for start in range(0, len(order), PAIRS_AT_ONCE):
                indices = order[start : start + PAIRS_AT_ONCE]
                logits = self._network(**self._padded([pairs[index] for index in indices])).logits
                scores[indices] = logits[:, 0].double().cpu().numpy()
                advance(len(indices))
        return scores

    def _padded(self, pairs: Sequence[EncodedPair]) -> "dict[str, Tensor]":
        import torch

        width = max(len(pair.ids) for pair in pairs)
        read = torch.zeros(3, len(pairs), width, dtype=torch.long)
        read[0] = self._network.config.pad_token_id
        for row, pair in enumerate(pairs):
            read[0, row, : len(pair.ids)] = torch.tensor(pair.ids)
            read[1, row, : len(pair.ids)] = 1
            read[2, row, pair.of_reference : len(pair.ids)] = 1
        names = ("input_ids", "attention_mask", "token_type_ids")
        return dict(zip(names, read.to(self._network.device), strict=True))


def _load_tokenizer(folder: Path) -> Any:
    require_extra("bleurt", "--bleurt", "sentencepiece")
    from sentencepiece import SentencePieceProcessor

    file = _first_existing(folder, PIECE_FILES)
    try:
        pieces = SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError, TypeError) as error:
        raise UserError(f"{file} is no sentencepiece model: {error}.") from None
    if unknown := [piece for piece in (OPENING, CLOSING) if pieces.piece_to_id(piece) == pieces.unk_id()]:
        raise UserError(f"{file} has no piece {' or '.join(unknown)}, so it is not BLEURT-20's.")
    return pieces


def _load_network(folder: Path) -> tuple[Any, str]:
    """RemBERT with the weights in `folder`, and the first digits of their hash."""
    import torch
    from transformers import RemBertConfig, RemBertForSequenceClassification

    from signllava_cli.model.sign_llava_file import load_tensors

    config = read_json(folder / "config.json")
    file = _first_existing(folder, WEIGHT_FILES)
    if config.get("model_type") != "bleurt" or not config.get("embedding_size"):
        raise UserError(f"--bleurt {folder}: its config.json is none of the BLEURT-20 family's.")
    known = RemBertConfig(
        **{**config, "model_type": "rembert", "input_embedding_size": config["embedding_size"], "num_labels": 1}
    )
    network = RemBertForSequenceClassification(known).eval()
    tensors = {_renamed(name): tensor for name, tensor in load_tensors(file).items()}
    expected = network.state_dict().keys()
    if lacking := sorted(expected - tensors.keys()):
        raise UserError(f"{file} lacks {len(lacking)} tensors of BLEURT-20 ({summarize_names(lacking)}).")
    try:
        network.load_state_dict({name: tensors[name] for name in expected})
    except RuntimeError as error:
        raise UserError(f"{file} does not fit its config.json: {str(error).splitlines()[-1].strip()}") from None
    return network.to("cuda" if torch.cuda.is_available() else "cpu"), sha256_file(file)[:8]


def _renamed(name: str) -> str:
    """The name that transformers' RemBERT gives to a tensor of BLEURT."""
    return name.replace("bleurt.", "rembert.", 1).replace("embedding_projection", "embedding_hidden_mapping_in")


def _first_existing(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"--bleurt {folder} has no {' or '.join(names)}; it takes a local copy of the Hugging Face repository "
        "lucadiliello/BLEURT-20."
    )
