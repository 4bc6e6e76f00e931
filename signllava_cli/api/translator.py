"""`SignLlava`: a checkpoint and its LLM as one object that translates features."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from signllava_cli.api.answer_attention import AnswerAttention, frame_spans, read_attention
from signllava_cli.api.hub import find_pretrained, push_checkpoint, save_checkpoint
from signllava_cli.api.inputs import InvalidInput, check_features, check_text
from signllava_cli.api.video_features import VideoOptions, VideoReader, choose_video_streams, read_cut
from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.data.context import context_indices
from signllava_cli.data.examples import Example, ExampleBuilder, Truncation
from signllava_cli.data.projector_inputs import join_all, projector_inputs
from signllava_cli.data.tasks import Instruction, translation_instruction
from signllava_cli.generation.decoding import Decoder, Hypothesis, decode_all, open_decoder
from signllava_cli.model.checkpoint import checkpoint_recipe, read_config
from signllava_cli.model.loading import ModelBundle, load_for_decoding
from signllava_cli.recipe import Recipe, format_override

Features = Mapping[str, Any]
NearestToken = tuple[str, float]

# Settings of `generate` that choose clips, context and instructions: here they are arguments of the methods.
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
INPUT_ID = "handed over/clip"  # the id of every input: samples are a function of the seed and this id
ROWS_PER_CHUNK = 8192  # of the embedding table, in float32


@dataclass(frozen=True)
class Translation:
    """The model's translation of a clip, or its answer to a question.

    `score`: mean log-probability of the tokens of `text`, the end of turn included. `finished`: whether the model
    ended the text; otherwise `max_new_tokens` did. `n_best`: texts and scores, this one first, if the model was
    opened with `num_return_sequences`. `context`: the sentences in the prompt. `truncation`: frames and sentences
    removed to fit the recipe's `data.max_seq_len`. `abstained`: the text that was withheld because its score is below
    the setting `abstain`; `text` is then empty.
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
        """Stream, or name of joined streams -> float32 (E, hidden): the embeddings of the frames in the prompt.

        Computed on first access. E is T, unless the projector shortens.
        """
        return self._embed()


class SignLlava:
    """A trained model: projectors, the LLM they were trained with, and the LoRA adapter if there is one.

    Made by `from_pretrained`. Threads may share it: calls run one after another.
    """

    def __init__(self, checkpoint: Path, recipe: Recipe, bundle: ModelBundle) -> None:
        self.checkpoint, self.recipe, self._bundle = checkpoint, recipe, bundle
        self._builder = ExampleBuilder(
            bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        )
        self._decoder: Decoder | None = open_decoder(bundle, recipe)
        self._lock, self._video_lock = threading.Lock(), threading.Lock()
        self._video_readers: dict[VideoOptions, VideoReader] = {}

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
            llm: folder or hub id of the LLM, if it is not where the checkpoint says.
            device: by default the first GPU, or the CPU if there is no GPU.
            revision: of the hub repository.
            config: decoding settings of the recipe's section `generate`, such as `num_beams=1`.

        Raises:
            InvalidInput: a setting that only `signllava generate` has.
            UserError: the checkpoint is missing or damaged, its LLM does not match, or a setting is wrong.
        """
        if command_settings := sorted(COMMAND_ONLY & config.keys()):
            raise InvalidInput(
                f"{', '.join(command_settings)}: only for `signllava generate`; pass features to `translate`, "
                "questions to `ask`, and set `batch_size` to limit memory."
            )
        checkpoint = find_pretrained(name, revision)
        overrides = [format_override(f"generate.{key}", value) for key, value in config.items()]
        overrides += [format_override("llm.path", llm)] if llm is not None else []
        recipe = checkpoint_recipe(checkpoint, overrides)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(checkpoint, recipe, load_for_decoding(checkpoint, recipe, torch.device(device)))

    @property
    def streams(self) -> dict[str, int]:
        """Stream name -> width of its frames, of all streams that the model knows."""
        return {name: stream.width for name, stream in self.recipe.streams.items()}

    @cached_property
    def layouts(self) -> dict[str, str]:
        """Stream name -> layout of its numbers in training, where known. The layout of an array cannot be checked."""
        return read_config(self.checkpoint).layouts

    def translate(self, features: Features, context: Sequence[str] = (), prelude: int | None = None) -> Translation:
        """The translation of one clip.

        Args:
            features: stream name -> numbers (T, width), numpy or torch; any of the model's streams. Of joined streams
                that are not all given, the missing ones are zeros.
            context: the sentences signed before the clip, in signing order; empty ones are skipped.
            prelude: how many of them belong to the recording's prelude, by default the recipe's number; truncation
                removes them last.

        Raises:
            InvalidInput: features or context are not of this form. It is a ValueError.
            ClipTooLong: the prompt with the fewest frames exceeds the recipe's `data.max_seq_len`.
        """
        return self.translate_batch([features], [context], prelude)[0]

    def translate_batch(
        self,
        clips: Sequence[Features],
        contexts: Sequence[Sequence[str]] | None = None,
        prelude: int | None = None,
    ) -> list[Translation]:
        """The translations of several clips, as by `translate`, but decoded together, which is faster.

        Args:
            contexts: one for each clip; by default none.
        """
        contexts = [()] * len(clips) if contexts is None else contexts
        if len(contexts) != len(clips):
            raise InvalidInput(f"{len(contexts)} contexts, number of clips {len(clips)}; pass one for each clip.")
        instruction = self._instruction(None)
        return self._decode(
            [
                self._build_example(features, instruction, context, prelude)
                for features, context in zip(clips, contexts, strict=True)
            ]
        )

    def translate_recording(
        self, clips: Iterable[Features], context: int | None = None, prelude: int | None = None
    ) -> Iterator[Translation]:
        """The translations of the clips of one recording, in signing order, each with the earlier ones as context.

        Args:
            context: the window N; by default the recipe's.
            prelude: M; by default the recipe's.
        """
        window = self.recipe.context.window if context is None else context
        prelude = self.recipe.context.prelude if prelude is None else prelude
        if window < 0 or prelude < 0:
            raise InvalidInput(f"context={window}, prelude={prelude}: expected 0 or more.")
        texts: list[str] = []
        for features in clips:
            context_sentences = [texts[index] for index in context_indices(len(texts), window, prelude)]
            translation = self.translate(features, context_sentences, prelude)
            texts.append(translation.text)
            yield translation

    def translate_video(
        self,
        path: str | Path,
        start: float | None = None,
        end: float | None = None,
        context: Sequence[str] = (),
        prelude: int | None = None,
        *,
        streams: Sequence[str] | None = None,
        pose_model: str | Path | None = None,
        dino: str | Path | None = None,
        dino_hands: str | Path | None = None,
    ) -> Translation:
        """The translation of the frames of a video with `start <= time < end`, in seconds; None: without bound.

        The features are those of `signllava prepare extract`, in the layout of the training.

        Args:
            context: as in `translate`.
            prelude: as in `translate`.
            streams: those to use; by default all of the model.
            pose_model: the file of the landmark model; by default the official one in the user's cache.
            dino: image backbone of stream dino, a folder or hub id; by default that of the training, if it is on the
                hub.
            dino_hands: another backbone for the hands.

        Raises:
            InvalidInput: a stream cannot be made from a video, or `prepare extract` would leave the clip out: the
                file is unreadable, no frame is within the cut, no frame has shoulders, too few have a body.
            UserError: the extra `video` is not installed, or a model cannot be loaded.
        """
        cut = read_cut(path, start, end)
        options = VideoOptions(
            Path(pose_model).expanduser() if pose_model is not None else None,
            str(dino) if dino is not None else None,
            str(dino_hands) if dino_hands is not None else None,
            tuple(streams) if streams is not None else None,
        )
        with self._video_lock:
            if options not in self._video_readers:
                self._video_readers[options] = choose_video_streams(list(self.streams), self.layouts, options).open()
            try:
                clip = self._video_readers[options].read(cut)
            except UnreadableClip as error:
                raise InvalidInput(f"{cut.file}: {error}.") from None
        return self.translate(clip.features, context, prelude)

    def ask(self, features: Features, question: str, context: Sequence[str] = ()) -> Translation:
        """The answer to a question about one clip. Arguments and errors as in `translate`."""
        return self._decode([self._build_example(features, self._instruction(question), context)])[0]

    def attention(
        self,
        features: Features,
        text: str,
        context: Sequence[str] = (),
        prelude: int | None = None,
        *,
        question: str | None = None,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
    ) -> AnswerAttention:
        """Which frames the model reads for each word of `text`, such as its own translation or the reference.

        One forward pass over the prompt and the text. The attention of a word is that of the positions that predict
        its tokens, averaged over tokens, layers and heads.

        Args:
            features: as in `translate`.
            text: the model's answer; other texts are read as if the model had answered them.
            context: as in `translate`; `Translation.context` has the sentences that it saw.
            prelude: as in `translate`.
            question: that `text` answers, as in `ask`; by default `text` is a translation.
            layers: numbers of the layers that are averaged, from 0; by default all that have attention.
            heads: numbers of the heads that are averaged, from 0; by default all.

        Raises:
            InvalidInput: the text has no word, or an argument is not valid.
            UserError: the LLM lacks a layer or head, or its class does not let its attention be read.
        """
        answer, instruction = self._bundle.prompts.answer(check_text("text", text)), self._instruction(question)
        example = self._build_example(features, instruction, context, prelude, len(answer))
        lengths, streams = {name: len(frames) for name, frames in features.items()}, self.recipe.streams
        spans = {
            name: frame_spans(lengths, streams, self._builder.inputs[name], len(frames))
            for name, frames in example.streams.items()
        }
        with self._lock:
            return read_attention(
                self._bundle, streams, replace(example, answer=answer), spans, instruction.text, layers, heads
            )

    @torch.no_grad()
    def nearest_tokens(self, stream: str, frames: Any, k: int = 5) -> list[list[NearestToken]]:
        """For each embedding of the frames of `stream`, the `k` tokens whose input embeddings have the highest cosine
        similarity with it.

        Args:
            frames: (T, width), as in `translate`. Those of the streams that `stream` is joined with are zeros.

        Returns:
            For each embedding that the model would read, one per frame unless the projector shortens: (token as text,
            cosine similarity), highest first.
        """
        if k < 1:
            raise InvalidInput(f"k={k}: expected 1 or more.")
        inputs = join_all(
            check_features({stream: frames}, self.recipe.streams), projector_inputs(self.recipe.streams)
        )
        table = self._bundle.model.llm.get_input_embeddings().weight  # (vocabulary, hidden)
        embeddings = normalize(
            torch.from_numpy(next(iter(self._embed_inputs(inputs).values()))).to(table.device), dim=-1
        )
        cosines = torch.cat(  # (T, vocabulary)
            [embeddings @ normalize(rows.float(), dim=-1).T for rows in table.split(ROWS_PER_CHUNK)], 1
        )
        top_cosines, top_ids = cosines.topk(min(k, len(table)))
        decode = self._bundle.prompts.tokenizer.decode
        return [
            [(decode([token_id]), cosine) for token_id, cosine in zip(frame_ids, frame_cosines, strict=True)]
            for frame_ids, frame_cosines in zip(top_ids.tolist(), top_cosines.tolist(), strict=True)
        ]

    def save_pretrained(self, folder: str | Path, llm: str | None = None) -> Path:
        """Write the files that inference needs, and a model card, into `folder`; `from_pretrained` reads it.

        Args:
            llm: the hub id of the LLM, saved instead of a path of this machine.

        Raises:
            UserError: the folder holds other files, or cannot be written.
        """
        return save_checkpoint(self.checkpoint, Path(folder).expanduser(), llm)

    def push_to_hub(
        self, repo_id: str, private: bool = False, llm: str | None = None, token: str | None = None
    ) -> str:
        """Upload what `save_pretrained` writes to the hub repository `repo_id`, and return its URL.

        Raises:
            UserError: the name is not valid, or the hub refuses or cannot be reached.
        """
        return push_checkpoint(self.checkpoint, repo_id, private, llm, token)

    def _instruction(self, question: str | None) -> Instruction:
        """The instruction that asks `question`, or for the translation (None)."""
        if question is None:
            return translation_instruction(self.recipe.tasks)
        if not check_text("question", question).strip():
            raise InvalidInput("question: expected a text, got an empty one.")
        return Instruction("translation", question)

    def _build_example(
        self,
        features: Features,
        instruction: Instruction,
        context: Sequence[str],
        prelude: int | None = None,
        num_answer: int = 0,
    ) -> Example:
        """The example of a clip without its answer, for which the budget has `max_new_tokens`, or `num_answer`."""
        if isinstance(context, str):
            raise InvalidInput("context: expected a list of sentences, got one string.")
        sentences = [sentence for sentence in context if check_text("context", sentence).strip()]
        streams = check_features(features, self.recipe.streams)
        reserve = max(self.recipe.generate.max_new_tokens, num_answer)
        return self._builder.build(INPUT_ID, streams, instruction, sentences, prelude, reserve, with_answer=False)

    def _decode(self, examples: list[Example]) -> list[Translation]:
        with self._lock:
            # an interrupted decoder still holds the clips of that call, so it is not used again
            decoder, self._decoder = self._decoder or open_decoder(self._bundle, self.recipe), None
            hypotheses = decode_all(decoder, examples, self.recipe.generate.batch_size)
            self._decoder = decoder
        return [
            self._make_translation(example, hypothesis)
            for example, hypothesis in zip(examples, hypotheses, strict=True)
        ]

    def _make_translation(self, example: Example, hypothesis: Hypothesis) -> Translation:
        return Translation(
            text=hypothesis.text,
            score=hypothesis.score,
            finished=hypothesis.finished,
            n_best=hypothesis.n_best,
            context=example.context,
            truncation=example.truncation,
            abstained=hypothesis.abstained,
            _embed=lambda: self._embed_inputs(example.streams),
        )

    @torch.no_grad()
    def _embed_inputs(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Name of a projector's input -> embeddings of its frames, float32 (E, hidden)."""
        projectors, device = self._bundle.model.projectors, self._bundle.device
        return {
            name: projectors[name].embed_clip(torch.from_numpy(frames.copy()).to(device)).float().cpu().numpy()  # type: ignore[operator]
            for name, frames in inputs.items()
        }
