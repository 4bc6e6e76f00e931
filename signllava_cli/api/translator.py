"""`SignLlava`: a checkpoint and its LLM, ready to translate what it is handed."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from signllava_cli.api.hub import find_pretrained, push_checkpoint, save_checkpoint
from signllava_cli.api.inputs import InvalidInput, check_features, check_text
from signllava_cli.data.annotations import Clip
from signllava_cli.data.context import context_indices
from signllava_cli.data.examples import Example, ExampleBuilder, Truncation
from signllava_cli.generation.decoding import Decoder, Hypothesis, decode_all, open_decoder
from signllava_cli.model.checkpoint import checkpoint_recipe, read_config
from signllava_cli.model.loading import ModelBundle, load_checkpoint_bundle
from signllava_cli.recipe import Recipe

Features = Mapping[str, Any]
NearestToken = tuple[str, float]

# Settings of `generate` that say which clips are shown, how, and what is asked: here the methods are told.
COMMAND_ONLY = frozenset(
    (
        "split",
        "context_source",
        "context_from",
        "missing_context",
        "task",
        "task_prompt",
        "ablate",
        "features",
        "max_tokens_per_batch",
    )
)
ROWS_PER_CHUNK = 8192  # of the embedding table, in float32


@dataclass(frozen=True)
class Translation:
    """What the model says of a clip.

    `score`: mean log-probability of the text's tokens, their end included. `finished`: it ended by itself. `n_best`:
    texts and scores, this one first, where the model was opened with `num_return`. `context`: the sentences that the
    prompt held. `cuts`: frames and sentences lost to the recipe's `data.max_seq_len`. `abstained`: what would stand
    in `text`, had its score not been below the setting `abstain`; then `text` is empty.
    """

    text: str
    score: float
    finished: bool
    n_best: tuple[tuple[str, float], ...]
    context: tuple[str, ...]
    truncation: Truncation
    abstained: str | None
    _embed: Callable[[], dict[str, np.ndarray]] = field(repr=False, compare=False)

    @cached_property
    def stream_embeddings(self) -> dict[str, np.ndarray]:
        """Stream -> float32 (T, hidden): the projected frames that the prompt held. Computed when first read."""
        return self._embed()


class SignLlava:
    """A trained model: projectors, the LLM they were trained with, and the adapter if there is one.

    Calls from several threads wait for each other. Made by `from_pretrained`.
    """

    def __init__(self, checkpoint: Path, recipe: Recipe, bundle: ModelBundle) -> None:
        self.checkpoint, self.recipe, self._assembled = checkpoint, recipe, bundle
        self._builder = ExampleBuilder(
            bundle.prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        )
        self._decoder: Decoder | None = open_decoder(bundle, recipe)
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        llm: str | Path | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        **config: Any,
    ) -> "SignLlava":
        """Open a run (its best checkpoint), a checkpoint folder, or a repository of the Hugging Face hub.

        Args:
            llm: where the LLM lies, if not where the checkpoint says.
            device: by default the first GPU, or the CPU where there is none.
            revision: of the hub repository.
            settings: keys of the recipe's section `generate` that steer decoding, such as `beams=1`.

        Raises:
            UserError: there is no such checkpoint, it is damaged, the LLM is another one, or a setting is wrong.
        """
        if foreign := sorted(COMMAND_ONLY & config.keys()):
            raise InvalidInput(
                f"{', '.join(foreign)}: of `signllava generate` alone; here you choose features, `ask` questions, "
                "and set `batch_size`."
            )
        checkpoint = find_pretrained(name, revision)
        overrides = [f"generate.{key}={json.dumps(value, default=str)}" for key, value in config.items()]
        overrides += [f"llm.path={json.dumps(str(llm))}"] if llm is not None else []
        recipe = checkpoint_recipe(checkpoint, overrides)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(checkpoint, recipe, load_checkpoint_bundle(checkpoint, recipe, torch.device(device)))

    @property
    def streams(self) -> dict[str, int]:
        """Stream name -> width of its frames, of all streams that the model knows."""
        return {name: stream.width for name, stream in self.recipe.streams.items()}

    @cached_property
    def layouts(self) -> dict[str, str]:
        """Stream name -> the name of what its numbers were in training, where known; arrays cannot be checked."""
        return read_config(self.checkpoint).layouts

    def translate(self, features: Features, context: Sequence[str] = (), prelude: int | None = None) -> Translation:
        """The translation of one clip.

        Args:
            features: stream name -> numbers (T, width), numpy or torch; any of the model's streams.
            context: the sentences signed before it, in signing order; an empty one is left out.
            prelude: how many of them are of the recording's beginning; where the context must be cut, they go last.

        Raises:
            BadInput: features or context are not such. It is a ValueError.
            CannotFit: a question, with the fewest frames, exceeds the recipe's `data.max_seq_len`.
        """
        return self.translate_batch([features], [context], prelude)[0]

    def translate_batch(
        self,
        clips: Sequence[Features],
        contexts: Sequence[Sequence[str]] | None = None,
        prelude: int | None = None,
    ) -> list[Translation]:
        """The translations of clips that do not wait for each other; as `translate` gives them, but faster."""
        contexts = [()] * len(clips) if contexts is None else contexts
        if len(contexts) != len(clips):
            raise InvalidInput(f"contexts: {len(contexts)} for {len(clips)} clips.")
        each = zip(clips, contexts, strict=True)
        return self._decoded([self._example(features, context, prelude) for features, context in each])

    def translate_recording(
        self, clips: Iterable[Features], context: int | None = None, prelude: int | None = None
    ) -> Iterator[Translation]:
        """The clips of one recording in signing order, each seeing what the model said of those before it.

        Args:
            context: the window N; by default the recipe's.
            prelude: M; by default the recipe's.
        """
        window = self.recipe.context.window if context is None else context
        prelude = self.recipe.context.prelude if prelude is None else prelude
        if window < 0 or prelude < 0:
            raise InvalidInput(f"context={window}, prelude={prelude}: neither may be negative.")
        said: list[str] = []
        for features in clips:
            seen = [said[index] for index in context_indices(len(said), window, prelude)]
            translation = self.translate(features, seen, prelude)
            said.append(translation.text)
            yield translation

    def ask(self, features: Features, question: str, context: Sequence[str] = ()) -> Translation:
        """The answer to a question about one clip, as `translate` gives translations."""
        if not check_text("question", question).strip():
            raise InvalidInput("question: expected a text, got none.")
        return self._decoded([self._example(features, context, None, question)])[0]

    @torch.no_grad()
    def nearest_tokens(self, stream: str, frames: Any, k: int = 5) -> list[list[NearestToken]]:
        """For each frame of `stream`, the `k` tokens whose input embeddings point most nearly where it points.

        Returns:
            For each frame that the model would read: (token as text, cosine similarity), the nearest first.
        """
        if k < 1:
            raise InvalidInput(f"k={k}: expected 1 or more.")
        frames16 = check_features({stream: frames}, self.recipe.streams)
        table = self._assembled.model.llm.get_input_embeddings().weight
        embedded = normalize(torch.from_numpy(self._embedded(frames16)[stream]).to(table.device), dim=-1)
        cosines = torch.cat([embedded @ normalize(rows.float(), dim=-1).T for rows in table.split(ROWS_PER_CHUNK)], 1)
        values, ids = cosines.topk(min(k, len(table)))
        decode = self._assembled.prompts.tokenizer.decode
        return [
            [(decode([token]), value) for token, value in zip(*each, strict=True)]
            for each in zip(ids.tolist(), values.tolist(), strict=True)
        ]

    def save_pretrained(self, folder: str | Path, llm: str | None = None) -> Path:
        """Write what inference needs, and a model card, into `folder`; `from_pretrained` reads it.

        Args:
            llm: the hub id of the LLM, to stand there instead of a path of this machine.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        return save_checkpoint(self.checkpoint, Path(folder).expanduser(), llm)

    def push_to_hub(
        self, repo_id: str, private: bool = False, llm: str | None = None, token: str | None = None
    ) -> str:
        """Upload what `save_pretrained` writes to the hub repository `repo_id`; its address comes back."""
        return push_checkpoint(self.checkpoint, repo_id, private, llm, token)

    def _example(
        self, features: Features, context: Sequence[str], prelude: int | None, question: str | None = None
    ) -> Example:
        if isinstance(context, str):
            raise InvalidInput("context: expected a list of sentences.")
        context = [sentence for sentence in context if check_text("context", sentence).strip()]
        frames = check_features(features, self.recipe.streams)
        room = self.recipe.generate.max_new_tokens
        return self._builder.build(INPUT_CLIP, frames, context, None, question, room, prelude)

    def _decoded(self, examples: list[Example]) -> list[Translation]:
        numbered = [replace(example, clip=replace(INPUT_CLIP, position=n)) for n, example in enumerate(examples)]
        with self._lock:
            # a decoder that was interrupted still holds clips of that call: it is not used again
            decoder, self._decoder = self._decoder or open_decoder(self._assembled, self.recipe), None
            decoded = list(decode_all(decoder, numbered, self.recipe.generate.batch_size))
            self._decoder = decoder
        decoded.sort(key=lambda pair: pair[0].clip.position)
        return [self._translation(example, hypothesis) for example, hypothesis in decoded]

    def _translation(self, example: Example, hypothesis: Hypothesis) -> Translation:
        below = self.recipe.generate.abstain
        held_back = below is not None and hypothesis.score < below
        return Translation(
            text="" if held_back else hypothesis.text,
            score=hypothesis.score,
            finished=hypothesis.finished,
            n_best=hypothesis.n_best,
            context=example.context,
            truncation=example.truncation,
            abstained=hypothesis.text if held_back else None,
            _embed=lambda: self._embedded(example.streams),
        )

    @torch.no_grad()
    def _embedded(self, streams: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        projectors, device = self._assembled.model.projectors, self._assembled.device
        return {
            name: projectors[name].embed(torch.from_numpy(frames.copy()).to(device)).float().cpu().numpy()  # type: ignore[operator]
            for name, frames in streams.items()
        }


INPUT_CLIP = Clip("handed over", "clip", 0, "")  # a clip of no dataset; samples are drawn by its name
