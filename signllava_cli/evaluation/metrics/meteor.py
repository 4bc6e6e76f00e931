"""METEOR (Lavie & Agarwal 2007) of NLTK, with the synonyms of a local copy of WordNet."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar
from zipfile import BadZipFile, ZipFile

import numpy as np

from signllava_cli.errors import UserError
from signllava_cli.evaluation.metrics.base import SentenceMeanMetric
from signllava_cli.evaluation.metrics.presets import Preset


class Meteor(SentenceMeanMetric):
    """Mean sentence METEOR of NLTK with its default parameters: exact words, Porter stems, synonyms.

    The Java program of METEOR 1.5, which many papers use, has other parameters and paraphrases, so other scores.

    Args:
        folder: NLTK's data, with corpora/wordnet.

    Raises:
        UserError: the folder has no readable WordNet, or the preset's language is not English.
    """

    labels: ClassVar = {"meteor": "METEOR"}

    def __init__(self, folder: Path, preset: Preset | None = None) -> None:
        import nltk.data
        from nltk.corpus import wordnet
        from nltk.translate.meteor_score import single_meteor_score

        super().__init__(preset)
        if not self.preset.is_english:
            raise UserError(f"--meteor has synonyms for English only; the preset {self.preset.name} is not English.")
        root = folder.expanduser().resolve()
        nltk.data.path.insert(0, str(root))
        archive = root / "corpora" / "wordnet.zip"
        try:
            if archive.is_file():
                ZipFile(archive).close()  # raises an error if it is damaged
            else:
                nltk.data.find("corpora/wordnet", [str(root)])
            wordnet.synsets("word")
            self._version = wordnet.get_version()
        except (OSError, LookupError, ValueError, AttributeError, BadZipFile) as error:
            reason = next((line.strip(" *") for line in str(error).splitlines() if line.strip(" *")), "")
            raise UserError(
                f"--meteor {folder} has no corpora/wordnet that NLTK can read ({reason}); download it with "
                "`python -m nltk.downloader -d FOLDER wordnet`."
            ) from None
        self._score = single_meteor_score

    def score_sentences(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """NLTK's score of each pair."""
        split_words = self.preset.split_words
        pairs = zip(hypotheses, references, strict=True)
        return np.array(
            [self._score(split_words(reference), split_words(hypothesis)) for hypothesis, reference in pairs],
            np.float64,
        )

    @property
    def signature(self) -> str:
        """The parameters, and the version of WordNet."""
        words = self.preset.words_signature
        return (
            f"nltk|alpha:0.9|beta:3|gamma:0.5|stem:porter|{words}|wordnet:{self._version}|version:{version('nltk')}"
        )
