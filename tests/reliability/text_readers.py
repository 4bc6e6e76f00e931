"""The readers of text files of the package, each with valid files, from which the fuzz tests make bad ones."""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer
from fuzzing import Reader
from mutations import MakeInput, bytes_inputs, json_inputs, lines_inputs, table_inputs, yaml_inputs
from text_seeds import (
    ANNOTATION,
    CHECKPOINT_CONFIG,
    CSV_SYSTEM,
    EXTRACT_REPORT,
    HOW2SIGN,
    KEYPOINTS,
    META,
    METRICS,
    OPENASL,
    PHOENIX,
    PLAN,
    PREDICTIONS,
    PROFILE,
    SCORES,
    SIGN_LLAVA,
    SIGN_LLAVA_YAML,
    TABLE,
    TABLE_OPTIONS,
    TABLE_WITHOUT_NAMES,
    TRAIN_STATE,
    VTT,
    YOUTUBE_ASL,
    YOUTUBE_ASL_TSV,
    as_json,
    as_lines,
)

from signllava_cli.cli.main import app
from signllava_cli.recipe import read_recipe
from signllava_cli.recipe.shipped import find_recipe
from signllava_cli.recipe.sign_llava_import import import_recipe

MAX_ARGUMENT = 1 << 17  # characters of an argument on Linux


@dataclass(frozen=True)
class FuzzedReader:
    """A reader, its bad inputs, and its share of all inputs."""

    reader: Reader
    inputs: Callable[[int], MakeInput]  # of a seed
    weight: float = 1.0


@cache
def _command_line() -> Callable[..., object]:
    return typer.main.get_command(app)  # takes longer than most inputs


def command(*words: object) -> None:
    """Run the command in this process; its errors are raised."""
    _command_line()([str(word) for word in words], standalone_mode=False)


def recipe_with_settings(file: Path) -> None:
    """Each line of the file is a `--set`."""
    text = file.read_bytes().decode("utf-8", errors="surrogateescape")
    read_recipe("toy/tiny_pretrain", [line[:MAX_ARGUMENT] for line in text.split("\n") if line])


def import_sign_llava(file: Path) -> None:
    imported = import_recipe(file, num_processes=2)
    imported.to_yaml().encode()


def copied_recipe(file: Path) -> None:
    target = file.with_name("copy.yaml")
    target.unlink(missing_ok=True)
    command("recipes", "copy", file, target)


def annotation(file: Path) -> None:
    from signllava_cli.data.annotations import read_annotations
    from signllava_cli.prepare.validation.annotation_checks import check_annotation
    from signllava_cli.prepare.validation.findings import Findings

    check_annotation(file.parent, "dev", Findings())
    for recording in read_annotations(file.parent, "dev"):
        for clip in recording.clips:
            f"{clip.id} {clip.translation} {clip.keywords} {clip.paraphrases}".encode()


def checked_annotation(file: Path) -> None:
    command("prepare", "check", file.parent, "--split", "dev", "--report", file.with_name("check.html"))


def keywords(file: Path) -> None:
    command("prepare", "keywords", file.parent, "--split", "dev", "--dry-run", "--min-count", 1)


def shard_map(file: Path) -> None:
    from signllava_cli.data.stream_files import DefaultLocation, find_stream_files
    from signllava_cli.prepare.validation.findings import Findings
    from signllava_cli.prepare.validation.stream_checks import find_shards

    for shard in (0, 1):
        file.with_name(f"mae.dev.{shard}.h5").touch()
    find_shards(file.parent.parent, "dev", "mae", DefaultLocation(), Findings())
    find_stream_files(file.parent.parent, "dev", "mae", DefaultLocation())


def system(file: Path) -> None:
    from signllava_cli.evaluation.system_files import read_systems, warn_about_decoding

    references = None
    if file.suffix == ".csv":
        references = file.with_name("gold.jsonl")
        references.write_bytes(as_lines(PREDICTIONS))
    warn_about_decoding(read_systems([str(file)] * 1, references, "empty"))


def references(file: Path) -> None:
    from signllava_cli.evaluation.system_files import read_systems

    system_file = file.with_name("system.csv")
    system_file.write_bytes(CSV_SYSTEM)
    read_systems([f"a={system_file}"], file, "exclude")


def plain_texts(file: Path) -> None:
    from signllava_cli.evaluation.system_files import read_texts

    other = file.with_name("reference.txt")
    other.write_bytes(b"the garden is big\nmy sister visits\n")
    read_texts([str(file)], other)


def predictions_meta(file: Path) -> None:
    from signllava_cli.evaluation.system_files import read_systems, warn_about_decoding
    from signllava_cli.generation.predictions_folder import different_settings

    file.with_name("predictions.jsonl").write_bytes(as_lines(PREDICTIONS))
    ", ".join(different_settings(file.parent, META))
    systems = read_systems([str(file.parent)], None, "empty")
    warn_about_decoding([*systems, *systems])


def scored(file: Path) -> None:
    command(*("eval", f"a={file}", "--samples", 20, "--trials", 20, "--out", file.with_name("scores.json")))


def metric_words(file: Path) -> None:
    """Each line is the hypothesis of a fixed reference."""
    lines = file.read_bytes().decode(errors="replace").split("\n")[:3]
    names = ("hyp.txt", "ref.txt")
    hyp, ref = (file.with_name(name) for name in names)
    hyp.write_text("\n".join(lines))
    ref.write_text("\n".join(["the garden is big", "my sister visits", "we eat bread"][: len(lines)]))
    command("eval", "--hyp", hyp, "--ref", ref, "--samples", 0, "--out", file.with_name("scores.json"))


def stop_list(file: Path) -> None:
    from signllava_cli.evaluation.metrics.presets import read_stop_list
    from signllava_cli.prepare.keywords import read_stop_words

    read_stop_words(file)
    read_stop_list(file)


def paraphrases(file: Path) -> None:
    from signllava_cli.prepare.paraphrases import merge_paraphrases

    file.with_name("annotation.dev.json").write_bytes(as_json(ANNOTATION))
    merge_paraphrases(file, file.parent, "dev", dry_run=True)


def importer(source: str, *options: str) -> Callable[[Path], None]:
    def read(file: Path) -> None:
        out = file.with_name("out")
        shutil.rmtree(out, ignore_errors=True)
        command("prepare", source, "--annotations", file, "--out", out, "--overwrite", *options)
        if written := next(out.glob("annotation.*.json"), None):
            from signllava_cli.data.annotations import parse_annotations
            from signllava_cli.files import read_json

            _, errors = parse_annotations(read_json(written))
            assert not errors, errors[0]

    return read


def train_state(file: Path) -> None:
    from signllava_cli.training.train_state import TrainState

    TrainState.read(file)


def checkpoint_config(file: Path) -> None:
    from signllava_cli.model.checkpoint import find_damage, read_config

    shutil.copyfile(find_recipe("toy/tiny_pretrain"), file.with_name("recipe.yaml"))
    file.with_name("progress.json").write_text("{}")
    find_damage(file.parent)
    read_config(file.parent)


def checkpoint_link(file: Path) -> None:
    from signllava_cli.files import read_link
    from signllava_cli.model.checkpoint import find_checkpoint

    (file.with_name("step-000200")).mkdir(exist_ok=True)
    (file.with_name("step-000200") / "config.json").touch()
    read_link(file)
    find_checkpoint(file.parent)


def metrics_log(file: Path) -> None:
    from signllava_cli.training.metrics_log import exponential_moving_average, read_metrics

    for curve in read_metrics(file).curves.values():
        exponential_moving_average(list(curve.values()), 0.6)


def metrics_of_checkpoint(file: Path) -> None:
    from signllava_cli.model.inspection import _dev_scores
    from signllava_cli.training.run_folder import _metrics_before
    from signllava_cli.training.train_state import TrainState

    _dev_scores(file, 3)
    _metrics_before(file.read_text(encoding="utf-8", errors="replace"), TrainState(step=3))


def launch_profile(file: Path) -> None:
    from signllava_cli.launch import build_launcher_args
    from signllava_cli.recipe.sections import Launch

    try:
        build_launcher_args(Launch(profile=str(file), num_processes=2))
    except SystemExit:
        raise AssertionError("the launcher's parser ended the process") from None


def pack_plan(file: Path) -> None:
    from signllava_cli.prepare.pack.plan import fingerprint_differences, read_plan

    plan = read_plan(file)
    json.dumps([plan.to_json(), plan.num_shards, fingerprint_differences(plan.fingerprint, plan.fingerprint)])


def extract_report(file: Path) -> None:
    from signllava_cli.prepare.validation.findings import Findings
    from signllava_cli.prepare.validation.stream_checks import StreamShards
    from signllava_cli.prepare.validation.video_checks import check_videos

    shards = StreamShards("dev", "pose", file.with_name("metadata_pose.dev.json"), {}, {}, frozenset())
    check_videos([shards], Findings())


def keypoints(file: Path) -> None:
    from signllava_cli.data.clip_source import UnreadableClip
    from signllava_cli.data.keypoints import read_mediapipe_json

    with suppress(UnreadableClip):  # the clip is skipped and named
        read_mediapipe_json(file)


def model_card_scores(file: Path) -> None:
    from signllava_cli.evaluation.outputs import is_output

    is_output(file)


def _readers() -> list[FuzzedReader]:
    recipes = tuple(find_recipe(name).read_bytes() for name in ("toy/tiny_pretrain", "toy/tiny_finetune", "finetune"))
    settings = (
        b"train.learning_rate=1e-3\nstreams.mae.conv={kernel: 3, stride: 2, layers: 2}\ntasks.train.is_reversed=0.5\n"
        b"generate.context_source=prepared:x\nstreams.dino=null\nlora.target_modules=[q_proj]\nlaunch.num_machines=2\n",
    )
    jsonl, csv, tsv = "predictions.jsonl", "system.csv", "table.dev.tsv"

    def of_json(*contents: Any) -> tuple[tuple[bytes, ...], Callable[[int], MakeInput]]:
        seeds = tuple(map(as_json, contents))
        return seeds, lambda seed: json_inputs(seeds, seed)

    def of_lines(*contents: Sequence[Any]) -> tuple[tuple[bytes, ...], Callable[[int], MakeInput]]:
        seeds = tuple(map(as_lines, contents))
        return seeds, lambda seed: lines_inputs(seeds, seed)

    def of_yaml(*seeds: bytes) -> tuple[tuple[bytes, ...], Callable[[int], MakeInput]]:
        return seeds, lambda seed: yaml_inputs(seeds, seed)

    def of_table(separator: str, *seeds: bytes) -> tuple[tuple[bytes, ...], Callable[[int], MakeInput]]:
        return seeds, lambda seed: table_inputs(seeds, separator, seed)

    def of_bytes(*seeds: bytes) -> tuple[tuple[bytes, ...], Callable[[int], MakeInput]]:
        return seeds, lambda seed: bytes_inputs(seeds, seed)

    def reader(
        name: str,
        read: Callable[[Path], object],
        inputs: tuple[tuple[bytes, ...], Callable[[int], MakeInput]],
        file_name: str,
        weight: float = 1.0,
    ) -> FuzzedReader:
        return FuzzedReader(Reader(name, read, inputs[0], file_name), inputs[1], weight)

    dev = "annotation.dev.json"
    return [
        reader("recipe", read_recipe, of_yaml(*recipes), "recipe.yaml", 0.5),
        reader("settings", recipe_with_settings, of_bytes(*settings), "settings.txt", 0.5),
        reader("recipe-copy", copied_recipe, of_yaml(*recipes), "recipe.yaml", 0.1),
        reader("sign-llava-yaml", import_sign_llava, of_yaml(*SIGN_LLAVA_YAML), "old.yaml", 0.5),
        reader("annotation", annotation, of_json(ANNOTATION), dev, 3.0),
        reader("check", checked_annotation, of_json(ANNOTATION), dev, 0.1),
        reader("keywords", keywords, of_json(ANNOTATION), dev, 0.3),
        reader("metadata", shard_map, of_json({"rec1": 0, "rec2": "1"}), "mae/metadata_mae.dev.json"),
        reader("predictions", system, of_lines(PREDICTIONS), jsonl, 3.0),
        reader("sign-llava-json", system, of_json(SIGN_LLAVA), "system.json", 3.0),
        reader("csv-system", system, of_table(",", CSV_SYSTEM), csv),
        reader("csv-references", references, of_table(",", CSV_SYSTEM), csv),
        reader("references", references, of_lines(PREDICTIONS), jsonl),
        reader("plain-texts", plain_texts, of_bytes(b"the garden\nmy sister\n"), "hyp.txt"),
        reader("predictions-meta", predictions_meta, of_json(META), "predictions.meta.json"),
        reader("scored-predictions", scored, of_lines(PREDICTIONS), jsonl, 0.05),
        reader(
            "scored-texts", metric_words, of_bytes(b"a garden is big\nmy sister\nbread we eat\n"), "words.txt", 0.1
        ),
        reader("stop-list", stop_list, of_bytes(b"# words\nthe\na\nand\n"), "stop.txt"),
        reader(
            "paraphrases-json",
            paraphrases,
            of_json({"a": ["x"], "rec1": {"b": ["y"]}}, ANNOTATION),
            "paraphrases.json",
        ),
        reader(
            "paraphrases-table",
            paraphrases,
            of_table("\t", b"clip\tparaphrase1\tparaphrase2\na\tone big garden\t\nrec1/b\tx\ty\n"),
            "paraphrases.tsv",
        ),
        reader("how2sign", importer("how2sign"), of_table("\t", HOW2SIGN), tsv, 0.5),
        reader("youtube-asl", importer("youtube-asl"), of_table(",", YOUTUBE_ASL), "table.dev.csv", 0.5),
        reader("youtube-asl-tsv", importer("youtube-asl"), of_table("\t", YOUTUBE_ASL_TSV), tsv, 0.5),
        reader("captions", importer("youtube-asl", "--split", "dev"), of_bytes(VTT), "id1.en.vtt", 0.5),
        reader("captions-fps", importer("youtube-asl", "--split", "dev", "--fps", "25"), of_bytes(VTT), "i.vtt", 0.2),
        reader("openasl", importer("openasl"), of_table("\t", OPENASL), "openasl.tsv", 0.5),
        reader("phoenix14t", importer("phoenix14t"), of_table("|", PHOENIX), "P.dev.corpus.csv", 0.5),
        reader("csv", importer("csv", *TABLE_OPTIONS), of_table(",", TABLE), "table.csv", 0.5),
        reader("how2sign-by-name", importer("how2sign", "--order", "name"), of_table("\t", HOW2SIGN), tsv, 0.2),
        reader(
            "csv-without-names", importer("csv", *TABLE_OPTIONS), of_table(",", TABLE_WITHOUT_NAMES), "t.csv", 0.2
        ),
        reader("progress", train_state, of_json(TRAIN_STATE), "progress.json"),
        reader("checkpoint-config", checkpoint_config, of_json(CHECKPOINT_CONFIG), "config.json", 0.2),
        reader("checkpoint-link", checkpoint_link, of_bytes(b"step-000200\n"), "best", 0.2),
        reader("metrics", metrics_log, of_lines(METRICS), "metrics.jsonl", 2.0),
        reader("metrics-of-checkpoint", metrics_of_checkpoint, of_lines(METRICS), "metrics.jsonl", 0.4),
        reader("launch-profile", launch_profile, of_yaml(PROFILE), "profile.yaml", 0.1),
        reader("pack-plan", pack_plan, of_json(PLAN), "plan.json"),
        reader("extract-report", extract_report, of_json(EXTRACT_REPORT), "extract.pose.dev.json"),
        reader("keypoints", keypoints, of_json(KEYPOINTS), "clip.json", 0.5),
        reader("scores", model_card_scores, of_json(SCORES), "scores.json"),
    ]


TEXT_READERS = {each.reader.name: each for each in _readers()}
