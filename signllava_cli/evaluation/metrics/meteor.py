"""METEOR (Lavie & Agarwal 2007) of NLTK, which finds synonyms in a local copy of WordNet."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np

from signllava_cli.errors import UserError
from signllava_cli.evaluation.metrics.base import SentenceMean
from signllava_cli.evaluation.metrics.presets import Preset


class Meteor(SentenceMean):
    """Mean sentence METEOR of NLTK with its defaults: exact words, Porter stems, synonyms.

    Papers that ran the Java program of METEOR 1.5 have other figures: its parameters and paraphrases are others.

    Args:
        data: a folder of NLTK's data with corpora/wordnet in it.

    Raises:
        UserError: it is no such folder, or the preset's language is not English.
    """

    labels: ClassVar = {"meteor": "METEOR"}

    def __init__(self, data: Path, preset: Preset | None = None) -> None:
        import nltk.data
        from nltk.corpus import wordnet
        from nltk.translate.meteor_score import single_meteor_score

        super().__init__(preset)
        if not self.preset.english:
            raise UserError(
                f"--meteor knows English synonyms alone; the preset {self.preset.name} is not for English."
            )
        nltk.data.path.insert(0, str(data.expanduser().resolve()))
        try:
            nltk.data.find("corpora/wordnet.zip" if (data / "corpora/wordnet.zip").is_file() else "corpora/wordnet")
            wordnet.synsets("word")
            self._version = wordnet.get_version()
        except (OSError, LookupError, ValueError, AttributeError) as error:
            said = next((line.strip(" *") for line in str(error).splitlines() if line.strip(" *")), "")
            raise UserError(
                f"--meteor {data} has no corpora/wordnet that NLTK can read ({said}); where there is a network, "
                "`python -m nltk.downloader -d FOLDER wordnet` fetches it."
            ) from None
        self._score = single_meteor_score

    def of_clips(self, hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
        """NLTK's score of each pair."""
        words = self.preset.words
        pairs = zip(hypotheses, references, strict=True)
        return np.array([self._score(words(meant), words(said)) for said, meant in pairs], np.float64)

    @property
    def signature(self) -> str:
        """The variant, and which WordNet."""
        words = self.preset.words_signature
        return (
            f"nltk|alpha:0.9|beta:3|gamma:0.5|stem:porter|{words}|wordnet:{self._version}|version:{version('nltk')}"
        )
