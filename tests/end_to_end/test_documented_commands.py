"""The other shell blocks of the docs, in a folder that has what they name, with a tiny LLM."""

import collections
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from doc_pages import ROOT, shell_block
from documented_lab import WIDTHS, Lab, copied_lab, frames, how2sign, how2sign_with_features, sentence, write_table

pytestmark = [pytest.mark.drill, pytest.mark.timeout(1800)]
MadeOnce = Callable[[str, Callable[[Path], object]], Path]
HIDDEN = 128  # of the tiny LLM


@pytest.fixture(scope="session")
def study(made_once: MadeOnce, corpus: Path, tiny_llm: Path) -> Path:
    """The How2Sign study, from tables to scores, and the toy corpus and the tiny LLM in data/."""

    def make(folder: Path) -> None:
        folder.mkdir()
        how2sign_with_features(folder)
        Lab(folder, tiny_llm).shell(
            shell_block("docs/how2sign.md", "prepare how2sign"),
            shell_block("docs/how2sign.md", "prepare pack"),
            shell_block("docs/how2sign.md", "--projector runs/pretrain"),
            shell_block("docs/how2sign.md", "signllava eval"),
        )
        shutil.copytree(corpus, folder / "data" / "toy")
        (folder / "data" / "llm").mkdir()
        (folder / "data" / "llm" / "tiny").symlink_to(tiny_llm)

    return made_once("documented_study", make)


@pytest.fixture
def lab(study: Path, tiny_llm: Path, tmp_path: Path) -> Lab:
    """A copy of the study."""
    return copied_lab(study, tmp_path / "lab", tiny_llm)


@pytest.fixture
def empty_lab(tiny_llm: Path, tmp_path: Path) -> Lab:
    return Lab(tmp_path / "empty", tiny_llm)


def write_sign_llava_configs(folder: Path) -> None:
    """pretrain.yaml and finetune.yaml, with the sections and keys of Sign_LLaVA, for data/how2sign."""
    streams = {
        stream: {
            "enable_input": True,
            **{split: f"{stream}/metadata_{stream}.{split}.json" for split in ("train", "dev")},
        }
        for stream in WIDTHS
    }
    projectors = {stream: {"dim": width, "projector_type": "mlp2x_gelu"} for stream, width in WIDTHS.items()}
    for name, bits in (("pretrain", 16), ("finetune", 4)):
        training = {"output_dir": f"signllava/checkpoints/{name}", "model_max_length": 2048, "bf16": True}
        training |= {"per_device_train_batch_size": 2, "num_train_epochs": 10, "learning_rate": 0.002}
        training |= {"label_smoothing_factor": 0.1, "lr_scheduler_type": "cosine", "warmup_ratio": 0.03}
        training |= {"bits": bits, "lora_enable": bits == 4, "lora_r": 64, "lora_alpha": 16, "seed": 42}
        config = {
            "ModelArguments": {"model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct"},
            "TrainingArguments": training,
            "SignDataArguments": {
                "context_window_size": 2,
                "prelude_window_size": 2,
                "data_dir": "data/how2sign",
                "annotation_path": {"train": "annotation.train.json", "dev": "annotation.dev.json"},
                "visual_features": streams,
            },
            "SignModelArguments": {"projectors": projectors},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))


def write_sign_llava_checkpoint(folder: Path) -> None:
    """DeepSpeed's file of a pretraining of Sign_LLaVA, for an LLM of the tiny LLM's size."""
    generator = torch.Generator().manual_seed(0)
    tensors = collections.OrderedDict()
    for stream, width in WIDTHS.items():
        for layer, size in (("0", width), ("2", HIDDEN)):
            name = f"model.{stream}_projector.{layer}"
            tensors[f"{name}.weight"] = torch.randn(HIDDEN, size, generator=generator).to(torch.bfloat16) / size**0.5
            tensors[f"{name}.bias"] = torch.zeros(HIDDEN, dtype=torch.bfloat16)
    file = folder / "checkpoint-2000" / "global_step2000" / "mp_rank_00_model_states.pt"
    file.parent.mkdir(parents=True)
    torch.save({"module": tensors, "global_steps": 2000, "ds_version": "0.14.4"}, file)


def write_sign_llava_predictions(folder: Path, name: str) -> None:
    """The JSON of Sign_LLaVA for the test split: its annotation with a hypothesis in each clip."""
    annotation = json.loads((folder / "data" / "how2sign" / "annotation.test.json").read_text())
    for recording in annotation.values():
        for clip in recording["clip_order"]:
            recording[clip]["hypothesis"] = "now we paint"
    (folder / name).write_text(json.dumps(annotation))


def rename_shards(folder: Path) -> None:
    """Move the shards of mae's training split out of the dataset, to the names that Sign_LLaVA's files have."""
    corpora = folder / "corpora"
    corpora.mkdir()
    for file in (folder / "data" / "how2sign" / "mae").glob("*.train.*"):
        if file.suffix == ".h5":
            file.rename(corpora / f"H2S.{file.name}")
        else:
            file.unlink()


def test_coming_from_sign_llava(lab: Lab) -> None:
    write_sign_llava_configs(lab.folder)
    write_sign_llava_checkpoint(lab.folder)
    write_sign_llava_predictions(lab.folder, "generation.on_the_fly_predicted_context.json")
    out = lab.shell(shell_block("docs/from-sign-llava.md", "finetune.yaml --num-processes 8"))
    assert "sign2vec.layers.0.weight" in out
    assert "theirs" in out
    rename_shards(lab.folder)
    out = lab.shell(shell_block("docs/from-sign-llava.md", "prepare link"))
    assert (lab.folder / "data" / "how2sign" / "mae" / "mae.train.0.h5").is_symlink()


def test_converting_and_going_on(lab: Lab) -> None:
    write_sign_llava_checkpoint(lab.folder)
    lab.shell(
        shell_block("docs/checkpoints.md", "checkpoint convert"),
        shell_block("docs/checkpoints.md", "run.output_dir=runs/on"),
    )
    assert (lab.folder / "runs" / "on" / "best").exists()


def test_inspecting_and_merging(lab: Lab) -> None:
    out = lab.shell(
        shell_block("docs/checkpoints.md", "checkpoint inspect runs/finetune "),
        shell_block("docs/checkpoints.md", "checkpoint merge"),
    )
    assert "stage" in out
    assert (lab.folder / "runs" / "merged" / "llm" / "config.json").is_file()


def test_training_on_hypotheses(lab: Lab) -> None:
    shutil.copy(ROOT / "recipes" / "pretrain.yaml", lab.folder / "R")
    lab.shell(shell_block("docs/context.md", "run.output_dir=runs/first"))
    assert (lab.folder / "runs" / "second" / "best").exists()


def test_checking_and_describing(lab: Lab) -> None:
    annotation = lab.folder / "data" / "how2sign" / "annotation.train.json"
    lab.shell(shell_block("docs/checking.md", "--split dev --fast"))
    shutil.copy(annotation, annotation.with_name("annotation.train.fixed.json"))
    lab.shell(shell_block("docs/checking.md", "annotation.train.fixed.json"))
    out = lab.shell(shell_block("docs/describing.md", "prepare describe"))
    assert "clips truncated to data.max_seq_len=92" in out
    assert (lab.folder / "charts" / "sequences.png").is_file()


def test_generating_and_scoring(lab: Lab) -> None:
    lab.shell(
        shell_block("docs/generation.md", "--context-source gold"),
        shell_block("docs/evaluation.md", "--latex table.tex"),
        shell_block("docs/evaluation.md", "--context-sources none,gold,predicted"),
    )
    assert (lab.folder / "table.tex").is_file()
    [predictions] = (lab.folder / "runs" / "finetune" / "predictions").glob("*.none")
    rows = [json.loads(line) for line in (predictions / "predictions.jsonl").read_text().splitlines()]
    for seed in (1, 2, 3):
        shutil.copytree(predictions, lab.folder / "runs" / f"s{seed}" / "predictions" / "step-004000.test.none")
    write_table(lab.folder / "t5.csv", [{"uid": row["clip"], "text": "now we paint"} for row in rows])
    assert "baseline" in lab.shell(shell_block("docs/evaluation.md", "baseline=t5.csv"))


def test_plotting_runs(lab: Lab) -> None:
    lab.shell(shell_block("docs/tracking.md", "signllava plot"))
    assert (lab.folder / "curves.png").is_file()


def test_packing_and_linking(lab: Lab) -> None:
    mae = lab.folder / "data" / "how2sign" / "mae"
    for file in mae.glob("*.train.*"):
        file.unlink()
    for file in (lab.folder / "features" / "mae" / "train").iterdir():
        shutil.copy(file, lab.folder / "features")
    lab.shell(shell_block("docs/packing.md", "prepare pack features/ "))
    rename_shards(lab.folder)
    lab.shell(shell_block("docs/packing.md", "prepare link"))
    assert (mae / "mae.train.0.h5").is_symlink()


def test_keywords_and_paraphrases(lab: Lab) -> None:
    data = lab.folder / "data"
    shutil.copytree(data / "how2sign", data / "phoenix14t", ignore=shutil.ignore_patterns("*.h5", "index.*"))
    annotation = json.loads((data / "how2sign" / "annotation.train.json").read_text())
    clips = [clip for recording in annotation.values() for clip in recording["clip_order"]]
    (lab.folder / "rephrased.json").write_text(json.dumps({clips[0]: ["We paint a line."]}))
    rows: list[dict[str, object]] = [{"SENTENCE_NAME": clips[1], "paraphrase": "Take it."}]
    write_table(lab.folder / "rephrased.tsv", rows, "\t")
    lab.shell(
        shell_block("docs/keywords.md", "prepare keywords data/how2sign"),
        shell_block("docs/keywords.md", "prepare paraphrases rephrased.json"),
    )
    texts = (data / "how2sign" / "annotation.train.json").read_text()
    assert "We paint a line." in texts
    assert "Take it." in texts


def write_tables_of_all_importers(folder: Path) -> None:
    rng = np.random.default_rng(1)
    how2sign(folder)
    asl: dict[str, object] = {"ClipID": "v.000000-000050", "Beg(s)": 0.0, "Dur(s)": 2.0, "YouTubeID": "v"}
    asl |= {"StartFrame": 0, "EndFrame": 50, "FPS": 25, "Caption": "We paint a line."}
    write_table(folder / "youtube_asl.train.csv", [asl])
    (folder / "captions").mkdir()
    caption = "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\nWe take the small brush.\n"
    (folder / "captions" / "abc.en.vtt").write_text(caption)
    row: dict[str, object] = {"vid": "abc-1", "yid": "abc", "start": "00:00:01.000", "end": "00:00:03.000"}
    row |= {"raw-text": "We paint.", "tokenized-text": "we paint", "gloss": "", "split": "train"}
    write_table(folder / "openasl-v1.0.tsv", [row], "\t")
    phoenix: dict[str, object] = {"name": "01April_2010_Thursday_heute-21", "video": "v", "start": -1, "end": -1}
    phoenix |= {"speaker": "Signer04", "orth": "REGEN", "translation": "am tag regen"}
    write_table(folder / "PHOENIX-2014-T.train.corpus.csv", [phoenix], "|")
    for split in ("train", "dev"):
        rows: list[dict[str, object]] = [{"uid": f"{split}{n}", "translation": sentence(rng)} for n in range(3)]
        write_table(folder / f"{split}.csv", rows)
    bobsl: dict[str, object] = {"id": "e1-1", "episode": "e1", "start": 1.0, "end": 2.0, "subtitle": "We paint."}
    write_table(folder / "bobsl.csv", [{**bobsl, "p1": "Painting.", "p2": "A painting."}])
    manifest: list[dict[str, object]] = [{"video": "v1", "duration": 2.0, "caption": "We take it."}]
    write_table(folder / "train.tsv", manifest, "\t", header=False)


def test_importing(empty_lab: Lab) -> None:
    write_tables_of_all_importers(empty_lab.folder)
    empty_lab.shell(shell_block("docs/importing.md", "prepare openasl"))
    data = empty_lab.folder / "data"
    made = {folder.name for folder in data.iterdir() if (folder / "annotation.train.json").is_file()}
    assert made == {"how2sign", "youtube_asl", "youtube_asl_captions", "openasl", "phoenix14t", "mine"}
    out = empty_lab.shell(shell_block("docs/importing.md", "--group-by video-id"))
    assert "own reference" in out
    shutil.rmtree(data / "mine")
    empty_lab.shell(
        shell_block("docs/importing.md", "bobsl.csv"), shell_block("docs/importing.md", "video_name,duration")
    )
    assert json.loads((data / "bobsl" / "annotation.train.json").read_text())["e1"]["e1-1"]["paraphrases"]


def test_recipes(empty_lab: Lab) -> None:
    out = empty_lab.shell(
        shell_block("docs/recipes.md", "recipes list"), shell_block("docs/recipes.md", "recipes explain lora")
    )
    assert "mine.yaml: no error" in out
    assert "generate.batch_size" in out
    resolved = empty_lab.shell(shell_block("docs/recipes.md", "recipes show finetune+pose"))
    assert "path: Qwen/Qwen3-8B" in resolved
    (empty_lab.folder / "mine.yaml").unlink()
    write_sign_llava_configs(empty_lab.folder)
    empty_lab.shell(shell_block("docs/recipes.md", "recipes import"))


def test_the_plan_of_an_ablation(empty_lab: Lab) -> None:
    how2sign(empty_lab.folder)
    empty_lab.shell("signllava prepare how2sign --annotations how2sign_realigned_*.csv --out data/how2sign")
    plan = empty_lab.shell(shell_block("docs/study.md", "runs/ablation --plan"))
    assert "36 runs: 0 trained, 0 translated" in plan
    assert not (empty_lab.folder / "runs").exists()


def test_on_a_laptop(empty_lab: Lab) -> None:
    empty_lab.shell(shell_block("docs/training.md", "prepare toy"))
    assert (empty_lab.folder / "runs" / "toy" / "tiny_finetune" / "best").exists()


def test_the_tutorial(empty_lab: Lab) -> None:
    out = empty_lab.shell(
        shell_block("docs/tutorial.md", "prepare toy"),
        shell_block("docs/tutorial.md", "prepare check"),
        shell_block("docs/tutorial.md", "signllava pretrain"),
        shell_block("docs/tutorial.md", "signllava generate"),
        shell_block("docs/tutorial.md", "report.html"),
        shell_block("docs/tutorial.md", "signllava finetune"),
    )
    assert "context-bound" in out
    assert (empty_lab.folder / "report.html").is_file()


def test_coming_from_t5_for_slt(empty_lab: Lab) -> None:
    rng, folder = np.random.default_rng(2), empty_lab.folder
    for name, split in (("train", "train"), ("val", "dev")):
        clips = [f"{split}{n}" for n in range(6)]
        rows: list[dict[str, object]] = [{"uid": clip, "translation": sentence(rng)} for clip in clips]
        write_table(folder / f"SLT_{name}.csv", rows)
        (folder / "keypoints" / split).mkdir(parents=True)
        for clip in clips:
            (folder / "keypoints" / split / f"{clip}.json").write_text(json.dumps(keypoints(rng)))
    empty_lab.shell(shell_block("docs/from-t5.md", "prepare csv"))
    predictions = [{"uid": f"dev{n}", "text": "now we paint"} for n in range(6)]
    write_table(folder / "SLT_predictions.csv", predictions)
    assert "t5" in empty_lab.shell(shell_block("docs/from-t5.md", "t5=SLT_predictions.csv"))


def keypoints(rng: np.random.Generator) -> dict[str, object]:
    """MediaPipe's landmarks of some frames, in pixels, as in the releases of YouTube-ASL."""
    sizes = {"pose": 33, "right_hand": 21, "left_hand": 21, "face": 478}
    parts = {f"{part}_landmarks": (rng.random((size, 2)) * 600).tolist() for part, size in sizes.items()}
    return {"keypoints": [parts] * 8}


def test_coming_from_multimodalhugs(empty_lab: Lab) -> None:
    rng, folder = np.random.default_rng(3), empty_lab.folder
    for split in ("train", "dev"):
        names = [f"{split}{n}" for n in range(4)]
        rows: list[dict[str, object]] = [
            {"name": name, "video": split, "start": n, "output": sentence(rng)} for n, name in enumerate(names)
        ]
        write_table(folder / f"clips.{split}.tsv", rows, "\t")
        (folder / "poses" / split).mkdir(parents=True)
        for name in names:  # .npy files in place of .pose files, which tests/prepare/pack reads
            np.save(folder / "poses" / split / f"{name}.npy", frames(rng, 208))
    out = empty_lab.shell(shell_block("docs/from-multimodalhugs.md", "prepare csv"))
    assert "4 clips" in out or "clips 4" in out
