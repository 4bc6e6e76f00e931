"""The Python API gives the results of the command line, and rejects invalid input."""

import doctest
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ended, MadeOnce, open_recipe_split
from hub_stand_in import Hub

from signllava_cli import SignLlava
from signllava_cli.api.inputs import InvalidInput
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.generation.decoding import SharedPrefixDecoder
from signllava_cli.generation.predictions_folder import read_predictions
from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
from signllava_cli.recipe import read_recipe

pytest_plugins = ["hub_stand_in"]
Command = Callable[..., Ended]
FRAMES = np.ones((20, 64))
SETTINGS: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def model(run: Path) -> SignLlava:
    return SignLlava.from_pretrained(run, **SETTINGS)


@pytest.fixture(scope="module")
def split(run: Path) -> Split:
    return open_recipe_split(checkpoint_recipe(find_checkpoint(run), []), "dev")


def test_the_documented_examples_run(run: Path, split: Split, tmp_path: Path) -> None:
    recording = [split.read(clip) for clip in split.clips if clip.recording == "dev00"]
    names = {"run": run, "recording": recording, "frames": recording[0], "folder": tmp_path / "saved"}
    file = Path(__file__).parent.parent / "docs" / "api.md"
    num_failed, num_tried = doctest.testfile(
        str(file), module_relative=False, globs=names, optionflags=doctest.ELLIPSIS
    )
    assert num_tried > 15
    assert not num_failed


def test_a_recording_is_translated_as_by_the_command(
    model: SignLlava, split: Split, signllava: Command, run: Path, tmp_path: Path
) -> None:
    options = ["--split", "dev", "--beams", 2, "--max-new-tokens", 8, "--context", 2, "--prelude", 1]
    ended = signllava("generate", "-c", run, *options, "--context-source", "predicted", "--out", tmp_path)
    assert ended.code == 0, ended.err
    rows = [row for row in read_predictions(tmp_path / "predictions.jsonl") if row.recording == "dev00"]
    recording = [split.read(clip) for clip in split.clips if clip.recording == "dev00"]
    translations = list(model.translate_recording(recording, context=2, prelude=1))
    for translation, row in zip(translations, rows, strict=True):
        assert (translation.text, list(translation.context)) == (row.hypothesis, row.context)
        assert translation.score == pytest.approx(row.score, abs=1e-4)


def test_a_batch_gives_the_translations_of_single_clips_from_numpy_or_torch(model: SignLlava, split: Split) -> None:
    clips = [split.read(clip) for clip in split.clips[:11]]
    contexts = [split.gold_context(clip, 2, 0) for clip in split.clips[:11]]
    together = model.translate_batch(clips, contexts)
    for clip, context, expected in zip(clips, contexts, together, strict=True):
        tensors = {name: torch.from_numpy(frames.astype(np.float32)) for name, frames in clip.items()}
        alone = model.translate(dict(reversed(tensors.items())), context)  # the order of streams is the model's
        assert (alone.text, alone.context) == (expected.text, expected.context)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "expected a dict"),
        ([1], "expected a dict"),
        ({"video": np.ones((3, 64))}, "knows no stream video"),
        ({"mae": np.ones((3, 65))}, r"shape \(3, 65\)"),
        ({"mae": np.ones(64)}, r"shape \(64,\)"),
        ({"mae": np.ones((0, 64))}, r"shape \(0, 64\)"),
        ({"mae": np.full((3, 64), np.nan)}, "has NaN"),
        ({"mae": np.full((3, 64), 1e6)}, "beyond the range of float16"),
        ({"mae": np.full((3, 64), "x")}, "expected numbers"),
        ({"mae": None}, "expected numbers"),
        ({"mae": {"mae": np.zeros((3, 64))}}, "expected the array of this stream, got a dictionary"),
    ],
)
def test_invalid_features_are_rejected(model: SignLlava, features: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.translate(features)


def test_other_invalid_input_is_rejected(model: SignLlava, run: Path) -> None:
    frames = {"mae": np.ones((20, 64))}
    for call in (
        lambda: model.translate(frames, context="a sentence"),
        lambda: model.translate(frames, context=[None]),  # type: ignore[list-item]
        lambda: model.ask(frames, " "),
        lambda: model.ask(frames, "\ud800"),
        lambda: model.nearest_tokens("mae", frames["mae"], k=0),
        lambda: SignLlava.from_pretrained(run, task_prompt="Is it raining?"),
        lambda: model.translate_batch([frames], [[], []]),
        lambda: list(model.translate_recording([frames], context=-1)),
    ):
        with pytest.raises(InvalidInput):
            call()
    with pytest.raises(UserError, match="num_beans: unknown key; did you mean `num_beams`"):
        SignLlava.from_pretrained(run, num_beans=3)
    with pytest.raises(UserError, match="No checkpoint at"):
        SignLlava.from_pretrained("/nowhere/at/all")


def test_nearest_tokens_have_the_highest_cosine_similarity(model: SignLlava, split: Split) -> None:
    table = model._bundle.model.llm.get_input_embeddings().weight
    nearest = model.nearest_tokens("mae", split.read(split.clips[0])["mae"], k=4)
    embeddings = model.translate(split.read(split.clips[0])).stream_embeddings["mae"]
    cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(embeddings)[:, None], table[None], dim=-1)
    top_cosines, top_ids = cosines.topk(4)
    decode = model._bundle.prompts.tokenizer.decode
    for frame, neighbors in enumerate(nearest):
        assert [token for token, _ in neighbors] == [decode([token_id]) for token_id in top_ids[frame].tolist()]
        assert [cosine for _, cosine in neighbors] == pytest.approx(top_cosines[frame].tolist(), abs=1e-5)


def test_threads_may_share_a_model(model: SignLlava, split: Split) -> None:
    clips = [split.read(clip) for clip in split.clips[:6]]
    expected = [model.translate(clip).text for clip in clips]
    texts: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: texts.update({n: model.translate(clips[n]).text})) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [texts[n] for n in range(6)] == expected


def test_a_call_after_an_interrupted_one_gives_the_translation_of_its_own_clip(
    model: SignLlava, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = split.read(split.clips[0]), split.read(split.clips[5])
    expected = model.translate(other)
    num_steps = 0

    def interrupted_step(decoder: Any, step: Callable[[Any], Any] = SharedPrefixDecoder.step) -> Any:
        nonlocal num_steps
        num_steps += 1
        if num_steps > 3:
            raise KeyboardInterrupt
        return step(decoder)

    with monkeypatch.context() as patch:
        patch.setattr(SharedPrefixDecoder, "step", interrupted_step)
        with pytest.raises(KeyboardInterrupt):
            model.translate(one)
    assert model.translate(other) == expected


def test_a_score_below_abstain_withholds_the_text(model: SignLlava, run: Path, split: Split) -> None:
    frames = split.read(split.clips[0])
    withheld = SignLlava.from_pretrained(run, **SETTINGS, abstain=-1e-9).translate(frames)
    assert (withheld.text, withheld.abstained) == ("", model.translate(frames).text)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, signllava_cli; assert 'torch' not in sys.modules; print(signllava_cli.__version__)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.fixture(scope="module")
def finetuned(made_once: MadeOnce, corpus: Path, tiny_llm: Path) -> Path:
    """A run of two steps of finetune, whose adapter changes hypotheses. Do not write to it."""

    def make(folder: Path) -> None:
        from signllava_cli.training.loop import train

        settings = [f"llm.path={tiny_llm}", f"data.root={corpus}", f"run.output_dir={folder}", "init.projector=null"]
        settings += ["train.max_steps=2", "train.learning_rate=0.02", "train.preflight=false"]
        train(read_recipe("toy/tiny_finetune", settings), "finetune")

    return made_once("finetuned", make)


def test_a_saved_model_with_an_adapter_gives_the_same_translations(
    finetuned: Path, split: Split, tiny_llm: Path, tmp_path: Path
) -> None:
    model = SignLlava.from_pretrained(finetuned, **SETTINGS)
    saved = model.save_pretrained(tmp_path / "saved", llm="lab/llm")
    reloaded = SignLlava.from_pretrained(model.save_pretrained(saved, llm="lab/llm"), llm=tiny_llm, **SETTINGS)
    clips = [split.read(clip) for clip in split.clips[:4]]
    assert reloaded.translate_batch(clips) == model.translate_batch(clips)
    files = [file for file in saved.rglob("*") if file.is_file()]
    assert {str(file.relative_to(saved)) for file in files} == {
        *("README.md", "config.json", "recipe.yaml", "projector.safetensors"),
        *("adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
    }
    assert not [file for file in files if str(tiny_llm.parent).encode() in file.read_bytes()]


def test_saving_overwrites_only_a_saved_model(model: SignLlava, run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    step = shutil.copytree(find_checkpoint(run), tmp_path / "step-000001")
    for folder in (tmp_path, tmp_path / "file", step, find_checkpoint(run)):
        with pytest.raises(UserError, match="choose another folder"):
            model.save_pretrained(folder)
    assert (step / "progress.json").is_file()


@pytest.mark.drill
def test_a_pushed_model_can_be_downloaded_and_its_card_lists_the_scores_of_its_translations(
    hub: Hub, signllava: Command, run: Path, model: SignLlava, tiny_llm: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(run, tmp_path / "signs", symlinks=True)
    options = ["--split", "dev", "--beams", 1, "--max-new-tokens", 4, "--context-source", "none"]
    assert signllava("generate", "-c", copy, *options).code == 0
    assert (
        signllava("generate", "-c", copy, *options, "--features", "zero").code == 0
    )  # a control, so not a score of the model
    for folder in (copy / "predictions").iterdir():
        assert signllava("eval", folder).code == 0
    assert signllava("checkpoint", "push", copy, "lab/signs", "--llm", tiny_llm).code == 0
    downloaded = SignLlava.from_pretrained("lab/signs", llm=str(tiny_llm), **SETTINGS)
    assert downloaded.translate({"mae": FRAMES}).text == model.translate({"mae": FRAMES}).text
    stored = hub.repositories["models/lab/signs"].files
    assert stored.keys() == {"README.md", "config.json", "recipe.yaml", "projector.safetensors", ".gitattributes"}
    assert not [name for name, content in stored.items() if str(tmp_path).encode() in content]
    card = stored["README.md"].decode()
    assert 'from_pretrained("lab/signs"' in card
    assert card.count("| dev | none | greedy | 38 |") == 1
    assert card.count("type: chrf") == 1


def test_an_unreachable_hub_is_an_error_of_one_line(signllava: Command, run: Path) -> None:
    ended = signllava("checkpoint", "push", run, "lab/signs")  # the tests are offline
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    with pytest.raises(UserError, match="lab/signs is not a local folder"):
        SignLlava.from_pretrained("lab/signs")
