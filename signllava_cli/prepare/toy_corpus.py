"""The toy corpus: a small sign language, invented so that every claim about context can be tested.

Each sentence is a row of signs; each sign is a few frames near a prototype vector, drawn per stream, blended at
the seams and noisy. Two kinds of sentences cannot be translated without context:

- TOOL reads pan, drum or spade: whichever belongs to the topic that the recording's first sentence
  names (`needs: prelude`);
- POINT reads whoever the sentence before it names (`needs: window`).

Sentences of dev and test do not occur in train.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from signllava_cli._version import __version__
from signllava_cli.data.annotations import Clip, ContextBound, Recording
from signllava_cli.errors import UserError
from signllava_cli.files import atomic_folder, write_json
from signllava_cli.prepare.dataset_writer import write_annotations, write_stream

TIMES = ("today", "tonight", "on Monday", "in winter", "every week")
PEOPLE = ("my sister", "the doctor", "the farmer", "grandmother")
VERBS = ("buys", "cleans", "paints", "finds", "hides")
OBJECTS = ("the lamp", "the coat", "the letter", "the apple", "the chair", "the box")
TOOL_OF_TOPIC = {"cooking": "pan", "music": "drum", "gardening": "spade"}
TEACH, TOOL, POINT = "TEACH", "TOOL", "POINT"
SIGNS = (*TIMES, *PEOPLE, *VERBS, *OBJECTS, *TOOL_OF_TOPIC, TEACH, TOOL, POINT)

RECORDINGS = {"test": 4, "dev": 3, "train": 32}  # the held-out splits choose their sentences first
CLIPS = (8, 20)
SHARDS = 2
KINDS = {"plain": 0.4, "tool": 0.3, "point": 0.3}
MARKER = "toy.json"


@dataclass(frozen=True)
class ToyStream:
    """One stream: numbers per frame, frames per sign (lowest, highest), standard deviation of the noise."""

    width: int
    frames: tuple[int, int]
    noise: float


STREAMS = {
    "sign2vec": ToyStream(width=48, frames=(1, 2), noise=0.3),
    "mae": ToyStream(width=64, frames=(2, 4), noise=0.5),
    "pose": ToyStream(width=26, frames=(2, 3), noise=0.8),
}


@dataclass(frozen=True)
class Sentence:
    """What is signed, and what it says. `person` is who the sentence names."""

    signs: tuple[str, ...]
    text: str
    paraphrase: str
    keywords: tuple[str, ...]
    person: str
    bound: ContextBound | None


def write_toy_corpus(root: Path, seed: int = 0) -> None:
    """Write the corpus under `root`; the same seed gives the same bytes.

    Raises:
        UserError: `root` holds something else.
    """
    if root.exists() and not (root / MARKER).is_file() and not (root.is_dir() and not any(root.iterdir())):
        raise UserError(f"{root} is not empty and is no toy corpus: choose another --out.")
    with atomic_folder(root) as folder:
        _write(folder, seed)


def _write(root: Path, seed: int) -> None:
    taken: set[str] = set()
    for split, count in RECORDINGS.items():
        rng = np.random.default_rng([seed, list(RECORDINGS).index(split)])
        topics = itertools.islice(itertools.cycle(TOOL_OF_TOPIC), count)
        corpus = [_recording(f"{split}{number:02d}", topic, rng, taken) for number, topic in enumerate(topics)]
        if split != "train":
            taken |= {sentence.text for _, sentences in corpus for sentence in sentences}
        write_annotations(root, split, [recording for recording, _ in corpus])
        for index, (name, stream) in enumerate(STREAMS.items()):
            prototypes = np.random.default_rng([seed, 10, index]).normal(size=(len(SIGNS), stream.width))
            frames = {
                recording.name: {
                    clip.name: _frames(sentence.signs, stream, prototypes, rng)
                    for clip, sentence in zip(recording.clips, sentences, strict=True)
                }
                for recording, sentences in corpus
            }
            write_stream(root, split, name, frames, SHARDS)
    write_json(root / MARKER, {"corpus": "signllava toy", "seed": seed, "version": __version__})


def _recording(name: str, topic: str, rng: np.random.Generator, taken: set[str]) -> tuple[Recording, list[Sentence]]:
    """A recording about `topic`, none of whose sentences is `taken`."""
    sentences: list[Sentence] = []
    for position in range(int(rng.integers(CLIPS[0], CLIPS[1] + 1))):
        while True:
            kind = "opener" if position == 0 else str(rng.choice(list(KINDS), p=list(KINDS.values())))
            sentence = _sentence(kind, topic, sentences[-1].person if sentences else "", rng)
            if sentence.text not in taken:
                break
        sentences.append(sentence)
    clips = tuple(
        Clip(name, f"{name}-{position:02d}", position, s.text, (s.paraphrase,), s.keywords, s.bound)
        for position, s in enumerate(sentences)
    )
    return Recording(name, clips), sentences


def _sentence(kind: str, topic: str, named_last: str, rng: np.random.Generator) -> Sentence:
    """A sentence of this kind in a recording about `topic` whose last sentence names `named_last`."""

    def one_of(words: Sequence[str]) -> str:
        return str(words[int(rng.integers(len(words)))])

    time, person, verb, thing = one_of(TIMES), one_of(PEOPLE), one_of(VERBS), one_of(OBJECTS)
    if kind == "opener":
        return _make_sentence((time, person, TEACH, topic), (time, person, "teaches", topic), person)
    if kind == "tool":
        tool = TOOL_OF_TOPIC[topic]
        bound = ContextBound("prelude", tool, _without(tuple(TOOL_OF_TOPIC.values()), tool))
        return _make_sentence((time, person, verb, TOOL), (time, person, verb, f"the {tool}"), person, bound)
    if kind == "point":
        bound = ContextBound("window", _noun(named_last), _without(tuple(map(_noun, PEOPLE)), _noun(named_last)))
        return _make_sentence((time, POINT, verb, thing), (time, named_last, verb, thing), named_last, bound)
    return _make_sentence((time, person, verb, thing), (time, person, verb, thing), person)


def _make_sentence(
    signs: tuple[str, ...], words: tuple[str, ...], person: str, bound: ContextBound | None = None
) -> Sentence:
    time, *rest = words
    return Sentence(
        signs=signs,
        text=_capitalize([time, *rest]),
        paraphrase=_capitalize([*rest, time]),
        keywords=tuple(_noun(word) for word in rest),
        person=person,
        bound=bound,
    )


def _capitalize(words: Sequence[str]) -> str:
    text = " ".join(words)
    return f"{text[0].upper()}{text[1:]}."


def _noun(phrase: str) -> str:
    return phrase.split()[-1]


def _without(words: tuple[str, ...], word: str) -> tuple[str, ...]:
    return tuple(each for each in words if each != word)


def _frames(signs: Sequence[str], stream: ToyStream, prototypes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frames (T, width) of a row of signs: each held for a few, its first one half way from the last."""
    rows: list[np.ndarray] = []
    for sign in signs:
        prototype = prototypes[SIGNS.index(sign)]
        held = [prototype] * int(rng.integers(stream.frames[0], stream.frames[1] + 1))
        if rows and len(held) > 1:
            held[0] = (rows[-1] + prototype) / 2
        rows.extend(held)
    clean = np.stack(rows)
    return (clean + stream.noise * rng.normal(size=clean.shape)).astype(np.float16)
