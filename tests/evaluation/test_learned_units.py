"""The parts of METEOR, BLEURT and COMET that their original programs do not show."""

import json
import os
import shutil
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from signllava_cli import errors
from signllava_cli.errors import UserError, format_count
from signllava_cli.evaluation.metrics import bleurt
from signllava_cli.evaluation.metrics.base import Metric
from signllava_cli.evaluation.metrics.bleurt import Bleurt
from signllava_cli.evaluation.metrics.comet import Comet
from signllava_cli.evaluation.metrics.meteor import Meteor
from signllava_cli.evaluation.metrics.presets import find_preset
from signllava_cli.files import sha256_file

TINY_BLEURT = Path(__file__).parent / "tiny_bleurt"
WORDNET = Path("/usr/share/wordnet")  # Debian's package wordnet-base
ROWS = json.loads((TINY_BLEURT / "scores.json").read_text())
HYPOTHESES, REFERENCES = [row["hypothesis"] for row in ROWS], [row["reference"] for row in ROWS]


@pytest.fixture(scope="module")
def metric() -> Bleurt:
    return Bleurt(TINY_BLEURT)


@pytest.mark.parametrize(
    ("kind", "labels"), [(Bleurt, {"bleurt": "BLEURT"}), (Comet, {"comet": "COMET"}), (Meteor, {"meteor": "METEOR"})]
)
def test_each_metric_has_its_name_in_tables(kind: type[Metric], labels: dict[str, str]) -> None:
    assert kind.labels == labels


# BLEURT


def test_bleurt_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "sentencepiece" else name)
    with pytest.raises(UserError) as error:
        Bleurt(TINY_BLEURT)
    assert str(error.value) == (
        '--bleurt needs packages that are not installed (sentencepiece): pip install "signllava[bleurt]"'
    )


def test_bleurt_scores_pairs_of_any_number_and_order(metric: Bleurt, capsys: pytest.CaptureFixture[str]) -> None:
    """More pairs than fit one batch, sorted by length inside."""
    order = np.random.default_rng(0).integers(len(ROWS), size=70).tolist()
    scores = metric.score_sentences([HYPOTHESES[n] for n in order], [REFERENCES[n] for n in order])
    assert scores == pytest.approx([ROWS[n]["score"] for n in order], abs=1e-5)
    assert scores.dtype == np.float64
    result = metric.compute(predictions=HYPOTHESES, references=REFERENCES)
    assert result["bleurt"] == pytest.approx(100 * np.mean([row["score"] for row in ROWS]), abs=1e-3)


def test_bleurt_computes_at_most_32_pairs_at_once_without_gradients(
    metric: Bleurt, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[Any] = []
    lengths: list[Any] = []
    advanced: list[Any] = []
    network = metric._network

    def record(**arguments: Any) -> Any:
        shapes.append(arguments["input_ids"].shape[0])
        lengths.append(arguments["input_ids"].shape[1])
        assert torch.is_inference_mode_enabled()
        return network(**arguments)

    pairs = metric._encode_pairs([HYPOTHESES[n % 5] for n in range(65)], [REFERENCES[n % 5] for n in range(65)])
    monkeypatch.setattr(metric, "_network", type("Network", (), {"__call__": lambda self, **a: record(**a)})())
    monkeypatch.setattr(type(metric._network), "config", network.config, raising=False)
    monkeypatch.setattr(type(metric._network), "device", network.device, raising=False)
    metric._score_pairs(pairs, advanced.append)
    assert shapes == advanced == [32, 32, 1]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[2] == min(len(pair.ids) for pair in pairs)


def test_bleurt_reads_reference_then_hypothesis(metric: Bleurt) -> None:
    tokenizer = metric._tokenizer
    cls, sep = tokenizer.piece_to_id("[CLS]"), tokenizer.piece_to_id("[SEP]")
    (pair,) = metric._encode_pairs(["Yes."], ["Tonight"])
    reference, hypothesis = tokenizer.encode("Tonight"), tokenizer.encode("Yes.")
    assert pair.ids == [cls, *reference, sep, *hypothesis, sep]
    assert pair.num_reference_tokens == len(reference) + 2
    (other,) = metric._encode_pairs([""], [""])
    batch = metric._pad_batch([pair, other])
    length, padding = len(pair.ids), len(pair.ids) - 3
    pad_id = metric._network.config.pad_token_id
    assert list(batch) == ["input_ids", "attention_mask", "token_type_ids"]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    assert batch["input_ids"].tolist() == [pair.ids, [cls, sep, sep] + [pad_id] * padding]
    assert batch["attention_mask"].tolist() == [[1] * length, [1] * 3 + [0] * padding]
    types = [0] * (len(reference) + 2) + [1] * (len(hypothesis) + 1)
    assert batch["token_type_ids"].tolist() == [types, [0, 0, 1] + [0] * padding]


def test_padding_has_the_pad_id_of_the_checkpoint(metric: Bleurt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metric._network.config, "pad_token_id", 7)
    pairs = metric._encode_pairs(["", "Yes."], ["", ""])
    assert metric._pad_batch(pairs)["input_ids"][0, 3:].unique().tolist() == [7]


@pytest.mark.parametrize(("hypothesis", "reference"), [(60, 60), (80, 20), (20, 80), (48, 49), (97, 1), (0, 98)])
def test_the_longer_text_of_a_pair_that_is_too_long_is_truncated_first(
    metric: Bleurt,
    hypothesis: int,
    reference: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Tokenizer:
        def piece_to_id(self, piece: str) -> int:
            return {"[CLS]": 1, "[SEP]": 2}[piece]

        def encode(self, texts: list[str]) -> list[list[int]]:
            return [[int(text[0])] * int(text[1:]) for text in texts]

    monkeypatch.setattr(metric, "_tokenizer", Tokenizer())
    pairs = metric._encode_pairs([f"5{hypothesis}", "51"], [f"6{reference}", "61"])
    kept = [len(pair.ids) - 3 for pair in pairs]
    assert kept == [min(97, hypothesis + reference), 2]
    in_reference, in_hypothesis = pairs[0].ids.count(6), pairs[0].ids.count(5)
    expected_hypothesis, expected_reference = hypothesis, reference
    while expected_hypothesis + expected_reference > 97:
        if expected_reference > expected_hypothesis:
            expected_reference -= 1
        else:
            expected_hypothesis -= 1
    assert (in_hypothesis, in_reference) == (expected_hypothesis, expected_reference)
    assert pairs[0].num_reference_tokens == expected_reference + 2
    printed = " ".join(capsys.readouterr().out.split())
    message = "BLEURT reads at most 97 tokens: 1 pair is longer, and was truncated."
    assert (message in printed) == (hypothesis + reference > 97)


def control_scores() -> list[float]:
    metric = Bleurt(TINY_BLEURT)
    return metric._score_pairs(metric._encode_pairs(bleurt.CONTROL_HYPOTHESES, bleurt.CONTROL_REFERENCES)).tolist()


def test_a_checkpoint_is_recognized_by_the_scores_of_two_pairs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = control_scores()
    weights = sha256_file(TINY_BLEURT / "model.safetensors")[:8]
    end = f"|weights:{weights}|transformers:{version('transformers')}"
    capsys.readouterr()
    for difference, name in ((0.0015, "TINY"), (0.01, "none that is published")):
        published = {"OTHER": (one, two + 1), "TINY": (one + difference, two)}
        monkeypatch.setattr(bleurt, "PUBLISHED_SCORES", published)
        assert Bleurt(TINY_BLEURT).signature == f"bleurt|checkpoint:{name}{end}"
        printed = " ".join(capsys.readouterr().out.split())
        message = f"scores two control pairs {one:.4f} and {two:.4f}, unlike every published BLEURT-20: do not"
        assert (message in printed) == (name != "TINY")


def test_the_published_scores_are_those_of_the_model_cards() -> None:
    """Of lucadiliello/BLEURT-20 and its smaller versions, for the pairs of their examples."""
    assert bleurt.PUBLISHED_SCORES == {
        "BLEURT-20": (0.9990, 0.7930),
        "BLEURT-20-D12": (0.9604, 0.8080),
        "BLEURT-20-D6": (0.9637, 0.7895),
        "BLEURT-20-D3": (0.9515, 0.8010),
    }
    assert bleurt.CONTROL_REFERENCES == ["a bird chirps by the window", "this is a random sentence"]
    assert bleurt.CONTROL_HYPOTHESES == ["a bird chirps by the window", "this looks like a random sentence"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint."""
    shutil.copytree(TINY_BLEURT, tmp_path / "bleurt")
    return tmp_path / "bleurt"


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        Bleurt(folder)
    return str(error.value)


def test_the_files_of_both_kinds_of_checkpoints_are_read(folder: Path) -> None:
    """Google's name of the tokenizer, a PyTorch file of tensors, and a config without labels."""
    config = json.loads((folder / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "spm.model").rename(folder / "sent_piece.model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    scores = Bleurt(folder).score_sentences(HYPOTHESES, REFERENCES)
    assert scores == pytest.approx([row["score"] for row in ROWS], abs=1e-5)


def test_a_checkpoint_that_lacks_a_file_or_a_tensor_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = [name for name in tensors if "query" in name]
    save_file({name: tensor for name, tensor in tensors.items() if name not in names}, folder / "model.safetensors")
    message = refusal(folder)
    count = format_count(len(names), "tensor of BLEURT-20 is", "tensors of BLEURT-20 are")
    assert f"{folder / 'model.safetensors'}: {count} missing (rembert." in message
    extra = {**tensors, "another": torch.zeros(1)}
    save_file(extra, folder / "model.safetensors")
    Bleurt(folder)
    (folder / "model.safetensors").unlink()
    assert refusal(folder) == (
        f"--bleurt {folder} has no model.safetensors or pytorch_model.bin; name a local copy of the Hugging Face "
        "repository lucadiliello/BLEURT-20."
    )
    (folder / "spm.model").unlink()
    assert f"--bleurt {folder} has no spm.model or sent_piece.model; " in refusal(folder)


@pytest.mark.parametrize("change", [{"model_type": "bert"}, {"embedding_size": 0}, {"embedding_size": None}])
def test_the_config_of_another_model_is_refused(folder: Path, change: dict[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    assert refusal(folder) == f"--bleurt {folder}: config.json is not that of a BLEURT-20 checkpoint."


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 31}))
    message = refusal(folder)
    assert message.startswith(f"{folder / 'model.safetensors'} does not fit config.json: size mismatch for ")
    assert "\n" not in message


def test_a_tokenizer_without_the_tokens_of_bleurt_is_refused(folder: Path) -> None:
    from sentencepiece import SentencePieceTrainer

    texts = ["Today my sister buys the coat.", "Tonight, the lamp falls!"] * 20
    for symbols, missing in (([], "[CLS] or [SEP]"), (["[CLS]"], "[SEP]")):
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=str(folder / "spm"),
            vocab_size=30,
            hard_vocab_limit=False,
            user_defined_symbols=symbols,
            minloglevel=2,
        )
        assert refusal(folder) == f"{folder / 'spm.model'} has no token {missing}: not the tokenizer of BLEURT-20."
    (folder / "spm.model").write_bytes(b"no")
    assert refusal(folder).startswith(f"{folder / 'spm.model'} is not a valid sentencepiece model: ")


# COMET

STAND_IN = """#!{python}
import json, os, sys
arguments = sys.argv[1:]
if os.environ.get("FAIL"):
    exec(os.environ["FAIL"])
texts = {{name: open(name, encoding="utf-8").read().split("\\n")[:-1] for name in ("src", "hyp", "ref")}}
scores = [{{"COMET": len(h) + len(r) / 100}} for h, r in zip(texts["hyp"], texts["ref"], strict=True)]
json.dump({{"hyp": scores[: int(os.environ.get("COUNT", 99))]}}, open("scores.json", "w"))
variables = {{name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "KEPT")}}
json.dump([arguments, texts, variables, os.getcwd()], open(os.environ["SEEN"], "w"))
"""


@pytest.fixture
def comet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Comet:
    """COMET with a stand-in for its command, which writes what it was given to the file `seen`."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "comet-score").write_text(STAND_IN.format(python=sys.executable))
    (programs / "comet-score").chmod(0o755)
    checkpoint = tmp_path / "wmt22" / "checkpoints" / "model.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("KEPT", "yes")
    monkeypatch.chdir(tmp_path)
    return Comet(Path("wmt22/checkpoints/model.ckpt"))


def test_comet_scores_each_pair_with_an_empty_source(comet: Comet, tmp_path: Path) -> None:
    """The command runs offline, in a folder of its own; a text with line breaks stays one line."""
    scores = comet.score_sentences(["a\nb  c", "Ü", ""], ["four", " x ", "yy"])
    assert scores.tolist() == [5.04, 1.01, 0.02]
    assert scores.dtype == np.float64
    arguments, texts, variables, folder = json.loads((tmp_path / "seen").read_text())
    checkpoint = str(tmp_path / "wmt22" / "checkpoints" / "model.ckpt")
    options = ["-s", "src", "-t", "hyp", "-r", "ref", "--to_json", "scores.json", "--gpus", "0", "--quiet", "--model"]
    assert arguments == [*options, checkpoint]
    assert texts == {"src": ["", "", ""], "hyp": ["a b c", "Ü", ""], "ref": ["four", "x", "yy"]}
    assert variables == {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "KEPT": "yes"}
    assert not Path(folder).exists()
    weights = sha256_file(Path(checkpoint))[:8]
    assert comet.signature == f"comet|checkpoint:wmt22|weights:{weights}|source:empty"


def test_comet_uses_one_gpu_if_there_is_any(comet: Comet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    comet.score_sentences(["a"], ["b"])
    arguments = json.loads((tmp_path / "seen").read_text())[0]
    assert arguments[arguments.index("--gpus") + 1] == "1"


def test_comet_prints_what_it_runs(comet: Comet, capsys: pytest.CaptureFixture[str]) -> None:
    comet.score_sentences(["a", "b"], ["b", "c"])
    assert "COMET: " in (printed := " ".join(capsys.readouterr().out.split()))
    assert printed.endswith("comet-score scores 2 clips")


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        ("print('first'); print('no \\x1b model', file=sys.stderr); sys.exit(3)", r"ended with 3: no \x1b model"),
        ("print('one\\ntwo'); sys.exit(1)", "ended with 1: two"),
        ("os.write(2, b'caf\\xe9\\n'); sys.exit(2)", "ended with 2: caf�"),
        ("sys.exit(0)", "ended with 0: it printed nothing"),
        ("json.dump({'hyp': []}, open('scores.json', 'w')); sys.exit(4)", "ended with 4: it printed nothing"),
    ],
)
def test_the_error_of_comet_has_the_last_line_of_its_output(
    comet: Comet, fail: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL", fail)
    with pytest.raises(UserError) as error:
        comet.score_sentences(["a"], ["b"])
    assert str(error.value) == f"comet-score {message}"


def test_comet_must_score_every_clip(comet: Comet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNT", "1")
    with pytest.raises(UserError, match=r"^comet-score scored 1 of 2 clips\.$"):
        comet.score_sentences(["a", "b"], ["c", "d"])


def test_comet_without_its_command_or_checkpoint_is_refused(
    comet: Comet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"^--comet wmt22: missing; name COMET's checkpoint, model\.ckpt\.$"):
        Comet(Path("wmt22"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError) as error:
        Comet(tmp_path / "wmt22" / "checkpoints" / "model.ckpt")
    assert str(error.value) == (
        "--comet needs the command comet-score, which is not on the PATH; install it in an environment of its own: "
        "pipx install unbabel-comet."
    )


# METEOR


def test_meteor_without_wordnet_or_for_another_language_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk.data

    (tmp_path / "another" / "corpora" / "wordnet").mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "another")])
    with pytest.raises(UserError) as error:
        Meteor(tmp_path, find_preset("phoenix14t"))
    assert str(error.value) == "--meteor has synonyms for English only; the preset phoenix14t is not English."
    (tmp_path / "corpora").mkdir()
    (tmp_path / "corpora" / "wordnet.zip").write_bytes(b"no")
    for reason in ("File is not a zip file", "Resource 'wordnet' not found."):
        with pytest.raises(UserError) as error:
            Meteor(tmp_path)
        assert str(error.value) == (
            f"--meteor {tmp_path} has no corpora/wordnet that NLTK can read ({reason}); download it with "
            "`python -m nltk.downloader -d FOLDER wordnet`."
        )
        (tmp_path / "corpora" / "wordnet.zip").unlink(missing_ok=True)


@pytest.mark.skipif(
    not (WORDNET / "index.sense").is_file(),
    reason="no WordNet on this machine (Debian: apt install wordnet-base wordnet-sense-index)",
)
def test_meteor_is_nltks_score_of_the_words_of_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.data
    from nltk.corpus import wordnet
    from nltk.translate.meteor_score import single_meteor_score

    folder = tmp_path / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for file in WORDNET.iterdir():
        shutil.copy(file, folder)  # NLTK refuses links that lead out of its folder
    parts = ["adj", "adj", "adv", *["noun"] * 26, *["verb"] * 15, "adj"]
    lines = (f"{number:02}\t{part}.{number}\t1\n" for number, part in enumerate(parts))
    (folder / "lexnames").unlink(missing_ok=True)
    (folder / "lexnames").write_text("".join(lines))
    monkeypatch.setattr(nltk.data, "path", ["another", "third"])
    metric = Meteor(tmp_path)
    assert nltk.data.path == [str(tmp_path.resolve()), "another", "third"]
    pairs = [("He's in the car.", "He is in an auto."), ("", "a"), ("The cat sat.", "The cat sat."), ("a b c", "a")]
    expected = [
        single_meteor_score(metric.preset.split_words(reference), metric.preset.split_words(hypothesis))
        for hypothesis, reference in pairs
    ]
    scores = metric.score_sentences(*zip(*pairs, strict=True))
    assert scores.tolist() == expected
    assert scores.dtype == np.float64
    with pytest.raises(ValueError, match="shorter"):
        metric.score_sentences(["a", "b"], ["a"])
    assert metric.signature == (
        f"nltk|alpha:0.9|beta:3|gamma:0.5|stem:porter|case:mixed|tok:13a|wordnet:{wordnet.get_version()}|"
        f"version:{version('nltk')}"
    )
