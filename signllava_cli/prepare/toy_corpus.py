"""Writes the toy corpus: a small invented sign language that tests the use of context.

Each sentence is a sequence of signs; each sign is a few noisy frames near a prototype vector of the stream, and its
first frame is the mean of its prototype and the frame before. Two kinds of sentences need context:

- TOOL means pan, drum or spade, depending on the topic in the recording's first sentence (`needs: prelude`);
- POINT means the person in the sentence before it (`needs: window`).

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

RECORDINGS = {
    "test": 4,
    "dev": 3,
    "train": 32,
}  # the held-out splits are generated first: train excludes their sentences
CLIPS = (8, 20)  # of a recording: minimum and maximum
SHARDS = 2
KINDS = {"plain": 0.4, "tool": 0.3, "point": 0.3}
MARKER = "toy.json"  # file that marks a folder as a toy corpus


@dataclass(frozen=True)
class ToyStream:
    """One stream: `width` of a frame, `frames` per sign (minimum, maximum), standard deviation of the `noise`."""

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
    """The signs of a sentence, and its text. `person`: the person that it mentions."""

    signs: tuple[str, ...]
    text: str
    paraphrase: str
    keywords: tuple[str, ...]
    person: str
    bound: ContextBound | None


def write_toy_corpus(root: Path, seed: int = 0) -> None:
    """Write the corpus under `root`; the same seed gives the same bytes.

    Raises:
        UserError: `root` is not empty and not a toy corpus.
    """
    if root.exists() and not (root / MARKER).is_file() and not (root.is_dir() and not any(root.iterdir())):
        raise UserError(f"{root} is not empty and not a toy corpus; choose another --out.")
    with atomic_folder(root) as folder:
        _write(folder, seed)


def _write(root: Path, seed: int) -> None:
    held_out: set[str] = set()
    for split, count in RECORDINGS.items():
        rng = np.random.default_rng([seed, list(RECORDINGS).index(split)])
        topics = itertools.islice(itertools.cycle(TOOL_OF_TOPIC), count)
        corpus = [
            _make_recording(f"{split}{number:02d}", topic, rng, held_out) for number, topic in enumerate(topics)
        ]
        if split != "train":
            held_out |= {sentence.text for _, sentences in corpus for sentence in sentences}
        write_annotations(root, split, [recording for recording, _ in corpus])
        for index, (name, stream) in enumerate(STREAMS.items()):
            prototypes = np.random.default_rng([seed, 10, index]).normal(size=(len(SIGNS), stream.width))
            frames = {
                recording.name: {
                    clip.name: _make_frames(sentence.signs, stream, prototypes, rng)
                    for clip, sentence in zip(recording.clips, sentences, strict=True)
                }
                for recording, sentences in corpus
            }
            write_stream(root, split, name, frames, SHARDS)
    write_json(root / MARKER, {"corpus": "signllava toy", "seed": seed, "version": __version__})


def _make_recording(
    name: str, topic: str, rng: np.random.Generator, held_out: set[str]
) -> tuple[Recording, list[Sentence]]:
    """A recording about `topic`, without the sentences in `held_out`."""
    sentences: list[Sentence] = []
    for position in range(int(rng.integers(CLIPS[0], CLIPS[1] + 1))):
        while True:
            kind = "opener" if position == 0 else str(rng.choice(list(KINDS), p=list(KINDS.values())))
            sentence = _sample_sentence(kind, topic, sentences[-1].person if sentences else "", rng)
            if sentence.text not in held_out:
                break
        sentences.append(sentence)
    clips = tuple(
        Clip(
            name,
            f"{name}-{position:02d}",
            position,
            sentence.text,
            (sentence.paraphrase,),
            sentence.keywords,
            sentence.bound,
        )
        for position, sentence in enumerate(sentences)
    )
    return Recording(name, clips), sentences


def _sample_sentence(kind: str, topic: str, last_person: str, rng: np.random.Generator) -> Sentence:
    """A sentence of this kind in a recording about `topic` whose last sentence mentions `last_person`."""

    def choose(words: Sequence[str]) -> str:
        return str(words[int(rng.integers(len(words)))])

    time, person, verb, noun_phrase = choose(TIMES), choose(PEOPLE), choose(VERBS), choose(OBJECTS)
    if kind == "opener":
        return _make_sentence((time, person, TEACH, topic), (time, person, "teaches", topic), person)
    if kind == "tool":
        tool = TOOL_OF_TOPIC[topic]
        bound = ContextBound("prelude", tool, _without(tuple(TOOL_OF_TOPIC.values()), tool))
        return _make_sentence((time, person, verb, TOOL), (time, person, verb, f"the {tool}"), person, bound)
    if kind == "point":
        bound = ContextBound("window", _noun(last_person), _without(tuple(map(_noun, PEOPLE)), _noun(last_person)))
        return _make_sentence(
            (time, POINT, verb, noun_phrase), (time, last_person, verb, noun_phrase), last_person, bound
        )
    return _make_sentence((time, person, verb, noun_phrase), (time, person, verb, noun_phrase), person)


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
    return tuple(other for other in words if other != word)


def _make_frames(
    signs: Sequence[str], stream: ToyStream, prototypes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The frames (T, width) of a sequence of signs; the first frame of a sign is halfway from the previous sign."""
    rows: list[np.ndarray] = []
    for sign in signs:
        prototype = prototypes[SIGNS.index(sign)]
        sign_frames = [prototype] * int(rng.integers(stream.frames[0], stream.frames[1] + 1))
        if rows and len(sign_frames) > 1:
            sign_frames[0] = (rows[-1] + prototype) / 2
        rows.extend(sign_frames)
    clean = np.stack(rows)
    return (clean + stream.noise * rng.normal(size=clean.shape)).astype(np.float16)
