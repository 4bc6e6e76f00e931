"""Each metric against its own program or its formula: scores of single clips, of sums, of nothing, and signatures."""

import hashlib
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF, TER
from sklearn.metrics import precision_recall_fscore_support

from signllava_cli.data.annotations import ContextBound
from signllava_cli.errors import UserError
from signllava_cli.evaluation.metrics import all_metrics
from signllava_cli.evaluation.metrics.all_metrics import METRICS, format_score
from signllava_cli.evaluation.metrics.base import Metric, MetricStatistics, SentenceMeanMetric, TextMetric
from signllava_cli.evaluation.metrics.context_bound import ContextBoundAccuracy, is_correct_reading
from signllava_cli.evaluation.metrics.presets import PRESETS, Preset, find_preset, read_stop_list
from signllava_cli.evaluation.metrics.text_metrics import (
    Bleu,
    Chrf,
    ChrfPlusPlus,
    ExactMatch,
    ReducedBleu,
    RougeL,
    RougeLMscoco,
    RougeLSeq2seq,
    Ter,
    Wer,
)
from signllava_cli.evaluation.metrics.yes_no import YesNo

REFERENCES = [
    "Today my sister buys the coat.",
    "Tonight, the lamp falls!",
    "In winter grandmother hides the key under the mat.",
    "yes",
    "A b c d e f",
    "",
    "One two",
    "long words only",
]
HYPOTHESES = [
    "Today my sister buys a coat.",
    "tonight the lamp falls",
    "Grandmother hides in winter the key.",
    "yes",
    "A b c d e f g h",
    "x",
    "",
    "zzz",
]
PAIRS = list(zip(HYPOTHESES, REFERENCES, strict=True))
GERMAN, CHINESE = find_preset("phoenix14t"), find_preset("csl-daily")


# BLEU, chrF and TER


def sacrebleu_metrics(preset: Preset) -> list[tuple[TextMetric, str, Any]]:
    bleu = {"tokenize": preset.tokenize, "lowercase": preset.lowercase}
    asian = preset.has_character_words
    return [
        *((Bleu(preset), f"bleu{order}", BLEU(**bleu, max_ngram_order=order)) for order in (1, 2, 3, 4)),
        (Chrf(preset), "chrf2", CHRF(lowercase=preset.lowercase)),
        (ChrfPlusPlus(preset), "chrf++", CHRF(lowercase=preset.lowercase, word_order=2)),
        (Ter(preset), "ter", TER(asian_support=asian, normalized=asian)),
    ]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_corpus_scores_and_signatures_are_those_of_sacrebleu(preset: Preset) -> None:
    hypotheses = [*HYPOTHESES, "他2010年喜欢 苹果。", "x", "yes indeed", "x", "a" + 300 * "b"]
    references = [*REFERENCES, "她喜欢2010 苹果", "x", "ye", "xy", "a" + 300 * "c"]
    count = len(hypotheses)
    subsets = [range(count), *([index] for index in range(count)), [1, 5], [5, 6], [2, 6], [3, 7], [0, 3, 8], [9, 11]]
    for metric, key, program in sacrebleu_metrics(preset):
        statistics = metric.extract_statistics(hypotheses, references)
        assert statistics.dtype == np.float64
        for subset in subsets:
            hyps, refs = [hypotheses[index] for index in subset], [references[index] for index in subset]
            expected = program.corpus_score(hyps, [refs]).score
            score = metric.compute_scores(statistics[list(subset)].sum(axis=0))[key]
            assert score == pytest.approx(expected, abs=1e-9), (key, subset)
        if key not in ("bleu1", "bleu2", "bleu3"):  # sacreBLEU's signature does not have the order
            assert metric.signature == str(program.get_signature())


@pytest.mark.parametrize("metric", [Bleu(), Chrf(), ChrfPlusPlus(), Ter(), Wer(), RougeL(), ExactMatch()])
def test_scores_of_many_sums_are_those_of_each(metric: TextMetric) -> None:
    statistics = metric.extract_statistics(HYPOTHESES, REFERENCES)
    table = np.stack([statistics[:4], statistics[4:]])  # (2, 4, K)
    scores = metric.compute_scores(table)
    assert list(scores) == list(metric.labels)
    for key, values in scores.items():
        assert values.shape == (2, 4)
        single = [[float(metric.compute_scores(row)[key]) for row in rows] for rows in table]
        assert values.tolist() == single


def test_smoothing_halves_with_each_order_without_a_match() -> None:
    """Two orders without a match, three, and an order without any n-gram, which makes BLEU 0 as in sacreBLEU."""
    for hypothesis, reference in (("a b x y z", "a b c d e"), ("a x b y z", "b a c d e"), ("a b c", "a b c d")):
        score = Bleu().compute(predictions=[hypothesis], references=[reference])
        for order in (1, 2, 3, 4):
            expected = BLEU(max_ngram_order=order, effective_order=False).corpus_score([hypothesis], [[reference]])
            assert score[f"bleu{order}"] == pytest.approx(expected.score, abs=1e-9)


def test_scoring_an_empty_hypothesis_prints_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    for metric in (Bleu(), Chrf(), Ter(), Wer(), RougeL(), RougeLSeq2seq(), YesNo()):
        metric.compute(predictions=["", ""], references=["", "a b"])
        metric.compute_scores(np.zeros(metric.extract_statistics([""], [""]).shape[1]))
    ContextBoundAccuracy().compute_scores(np.zeros(2))
    assert [str(warning.message) for warning in recwarn] == []


def test_chrf_is_in_the_first_columns_of_chrf_plus_plus() -> None:
    statistics = ChrfPlusPlus().extract_statistics(HYPOTHESES, REFERENCES)
    assert Chrf.select_statistics(statistics).tolist() == Chrf().extract_statistics(HYPOTHESES, REFERENCES).tolist()


# error rates


def test_wer_is_the_levenshtein_distance_of_the_words_of_bleu() -> None:
    statistics = Wer().extract_statistics(HYPOTHESES, REFERENCES)
    for row, (hypothesis, reference) in zip(statistics, PAIRS, strict=True):
        words = [BLEU().tokenizer(text).split() for text in (hypothesis, reference)]
        assert row.tolist() == [Levenshtein.distance(*words), len(words[1])]
    assert statistics.dtype == np.float64
    edits, length = statistics.sum(axis=0)
    assert Wer().compute(predictions=HYPOTHESES, references=REFERENCES)["wer"] == 100 * edits / length


@pytest.mark.parametrize("metric", [Ter(), Wer()])
def test_error_rates_without_reference_words_are_100_or_0(metric: TextMetric) -> None:
    (key,) = metric.labels
    assert metric.lower_is_better
    for hypothesis, reference, expected in (("", "", 0), ("a", "", 100), ("a b c", "a", 200), ("", "a b", 100)):
        result = metric.compute(predictions=[hypothesis], references=[reference])
        assert result[key] == expected
        assert isinstance(result[key], float)


def test_only_error_rates_are_better_when_lower() -> None:
    assert {key for key, entry in METRICS.items() if entry.metric.lower_is_better} == {"ter", "wer"}


# sentence metrics


def lcs(one: list[str], two: list[str]) -> int:
    if not one or not two:
        return 0
    if one[-1] == two[-1]:
        return 1 + lcs(one[:-1], two[:-1])
    return max(lcs(one[:-1], two), lcs(one, two[:-1]))


def test_rouge_l_is_that_of_rouge_score_and_has_the_words_of_the_preset_in_other_languages() -> None:
    scorer = RougeScorer(["rougeL"])
    expected = [scorer.score(reference, hypothesis)["rougeL"].fmeasure for hypothesis, reference in PAIRS]
    np.testing.assert_allclose(RougeL().score_sentences(HYPOTHESES, REFERENCES), expected, atol=1e-12)
    assert RougeL(CHINESE).score_sentences(["你好吗"], ["你好"]) == pytest.approx([0.8])
    assert RougeL(GERMAN).score_sentences(["über"], ["ÜBER x"]) == pytest.approx([2 / 3])


@pytest.mark.parametrize("metric", [Wer(), Ter()])
def test_words_for_an_empty_reference_are_an_error_rate_of_100(metric: TextMetric) -> None:
    key = next(iter(metric.labels))
    assert metric.compute(predictions=["one two three"], references=[""])[key] == 100
    assert metric.compute(predictions=[""], references=[""])[key] == 0


@pytest.mark.parametrize("metric_class", [RougeLMscoco, RougeLSeq2seq])
@pytest.mark.parametrize("preset", [Preset(), GERMAN, CHINESE])
def test_rouge_l_of_other_programs_follows_its_formula(metric_class: Any, preset: Preset) -> None:
    metric = metric_class(preset)
    pairs = [
        ("a b x A", "A b c a"),
        ("b c", "a b c d e"),
        ("x", "y"),
        ("", "a"),
        ("a c a b", "a c b a"),
        ("ab c", "a bc c"),
    ]
    for (hypothesis, reference), score in zip(pairs, metric.score_sentences(*zip(*pairs, strict=True)), strict=True):
        lower = str.lower if preset is GERMAN else str
        split = list if preset is CHINESE else str.split
        one, two = (
            split(lower(text).replace(" ", "" if preset is CHINESE else " ")) for text in (hypothesis, reference)
        )
        common, expected = lcs(one, two), 0.0
        if common:
            precision, recall = common / len(one), common / len(two)
            beta = 1.2 if metric_class is RougeLMscoco else precision / recall
            expected = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
        assert score == pytest.approx(expected, abs=1e-12)


def test_exact_match_ignores_white_space_and_case_as_the_preset_says() -> None:
    def score(preset: Preset, hypothesis: str, reference: str) -> float:
        return float(ExactMatch(preset).compute(predictions=[hypothesis], references=[reference])["exact_match"])

    assert score(Preset(), " a b\n", "a b") == 100
    assert score(Preset(), "a  b", "a b") == 0
    assert score(Preset(), "A b", "a b") == 0
    assert score(GERMAN, "A b", "a B") == 100
    assert score(GERMAN, "ab", "a b") == 0
    assert score(CHINESE, "你 好", "你好 ") == 100
    assert score(CHINESE, "A", "a") == 0


def test_a_sentence_metric_is_the_mean_in_percent_and_0_of_nothing() -> None:
    class Share(SentenceMeanMetric):
        labels = {"share": "share"}  # noqa: RUF012

        def score_sentences(self, hypotheses: Any, references: Any) -> np.ndarray:
            return np.array([float(text) for text in hypotheses])

    statistics = Share().extract_statistics(["0.5", "0.1"], ["", ""])
    assert statistics.tolist() == [[0.5, 1], [0.1, 1]]
    assert Share().compute_scores(statistics.sum(axis=0))["share"] == pytest.approx(30)
    assert Share().compute_scores(np.zeros(2))["share"] == 0
    assert Share().compute_scores(np.array([[0.5, 1], [0.5, 2]]))["share"].tolist() == [50, 25]


# reduced BLEU


def test_reduced_bleu_is_bleu_of_the_pairs_that_have_words_left(tmp_path: Path) -> None:
    stop_list = tmp_path / "stop.txt"
    stop_list.write_text("\ufeff# the stop words\nThe\n a  # an article\n\nmy\n", encoding="utf-8")
    metric = ReducedBleu(stop_list)
    pairs = [
        ("The cat, my cat sat.", "the CAT my cat sat down"),
        ("the a my", "a dog"),
        ("it is cold outside today again", "It is cold outside (today) again!"),
        ("dog", "The..."),
        ("", ""),
    ]
    hypotheses, references = zip(*pairs, strict=True)
    statistics = metric.extract_statistics(hypotheses, references)
    assert statistics.shape == (5, 11)
    assert statistics[:, -1].tolist() == [1, 0, 1, 0, 0]
    assert not statistics[[1, 3, 4]].any()
    reduced = (
        ["cat cat sat", "it is cold outside today again"],
        [["CAT cat sat down", "It is cold outside today again"]],
    )
    expected = BLEU().corpus_score(*reduced).score
    result = metric.compute(predictions=hypotheses, references=references)
    assert result["rbleu"] == pytest.approx(expected)
    assert result["rbleu_pairs"] == 2
    assert list(metric.labels) == ["rbleu", "rbleu_pairs"]
    assert metric.count_keys == {"rbleu_pairs"}
    assert metric.reduce("Don't: over_all—a 3.5% THE") == "Don t over_all 3 5"
    table = metric.compute_scores(np.stack([statistics[:2], statistics[1:3]]))
    assert table["rbleu"].shape == table["rbleu_pairs"].shape == (2, 2)
    words, name = read_stop_list(stop_list)
    assert words == {"the", "a", "my"}
    other = tmp_path / "stop.txt.copy"
    other.write_text("my\nthe\nA\n")
    assert read_stop_list(other)[1] == f"stop.txt.copy-{name.removeprefix('stop.txt-')}"
    assert name == "stop.txt-" + hashlib.sha256(b"a\nmy\nthe").hexdigest()[:8]
    assert metric.signature.endswith(f"|reduced|stop:{name}")
    assert metric.signature.startswith(str(Bleu().signature))
    assert ReducedBleu(stop_list, GERMAN).signature.startswith(Bleu(GERMAN).signature)


def test_a_stop_list_that_cannot_be_read_or_has_no_words_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing cannot be read: No such file or directory\.$"):
        read_stop_list(tmp_path / "missing")
    (tmp_path / "latin").write_bytes(b"\xfcber\n")
    with pytest.raises(UserError, match=r"latin, line 1, is not UTF-8 text; save"):
        read_stop_list(tmp_path / "latin")
    (tmp_path / "empty").write_text("# no words\n \n")
    with pytest.raises(UserError, match=r"^--stop-list .*empty has no words; expected one per line\.$"):
        read_stop_list(tmp_path / "empty")


# presets


def test_the_presets_of_the_datasets() -> None:
    assert {name: asdict(preset) for name, preset in PRESETS.items()} == {
        "how2sign": _preset("how2sign", "13a", False, "en", "rougeL"),
        "phoenix14t": _preset("phoenix14t", "none", True, "de", "rougeL_mscoco"),
        "csl-daily": _preset("csl-daily", "zh", False, "zh", "rougeL_mscoco"),
    }
    assert all(find_preset(name) is preset for name, preset in PRESETS.items())
    with pytest.raises(
        UserError, match=r"^--preset x: unknown preset; expected one of how2sign, phoenix14t, csl-daily\.$"
    ):
        find_preset("x")


def _preset(name: str, tokenize: str, lowercase: bool, language: str, rouge: str) -> dict[str, object]:
    return {"name": name, "tokenize": tokenize, "lowercase": lowercase, "language": language, "rouge": rouge}


def test_a_preset_splits_words_as_bleu_does() -> None:
    text = "It's 3.5 %, (Köln)!  \n"
    assert Preset().split_words(text) == ["It's", "3.5", "%", ",", "(", "Köln", ")", "!"]
    assert replace(GERMAN).split_words(text) == ["it's", "3.5", "%,", "(köln)!"]  # a copy has no tokenizer yet
    assert replace(CHINESE).split_words("他2010年 ") == ["他", "2010", "年"]
    assert [preset.is_english for preset in PRESETS.values()] == [True, False, False]
    tokenizers = ("zh", "char", "ja-mecab", "ko-mecab", "13a", "none", "intl", "flores200")
    assert [Preset(tokenize=name).has_character_words for name in tokenizers] == [True] * 4 + [False] * 4
    assert [preset.words_signature for preset in PRESETS.values()] == [
        "case:mixed|tok:13a",
        "case:lc|tok:none",
        "case:mixed|tok:zh",
    ]


def test_every_signature_names_the_variant(tmp_path: Path) -> None:
    rapidfuzz, rouge = version("rapidfuzz"), version("rouge-score")
    start = "rouge_score|rougeL|fmeasure|mean of sentences"
    expected: dict[Any, list[str]] = {
        Wer: [f"wer|case:{case}|rapidfuzz:{rapidfuzz}" for case in ("mixed|tok:13a", "lc|tok:none", "mixed|tok:zh")],
        RougeL: [
            f"{start}|words:{words}|stem:no|version:{rouge}"
            for words in ("rouge_score", "case:lc|tok:none", "case:mixed|tok:zh")
        ],
        RougeLMscoco: [
            f"mscoco|rougeL|beta:1.2|mean of sentences|case:{case}|rapidfuzz:{rapidfuzz}"
            for case in ("mixed|tok:spaces", "lc|tok:spaces", "mixed|tok:characters")
        ],
        RougeLSeq2seq: [
            f"seq2seq|rougeL|beta:precision/recall|mean of sentences|case:{case}|rapidfuzz:{rapidfuzz}"
            for case in ("mixed|tok:spaces", "lc|tok:spaces", "mixed|tok:characters")
        ],
        ExactMatch: [f"exact|case:{case}" for case in ("mixed|space:inside", "lc|space:inside", "mixed|space:no")],
        YesNo: ["yes-no|items:yes/no|positive:yes|malformed:wrong"] * 3,
    }
    for metric_class, signatures in expected.items():
        assert [metric_class(preset).signature for preset in (Preset(), GERMAN, CHINESE)] == signatures
        assert metric_class().signature == signatures[0]
    assert ContextBoundAccuracy().signature == "reading:present|others:absent|match:word|case:no"
    assert YesNo(yes="JA", no="Nein").signature == "yes-no|items:ja/nein|positive:ja|malformed:wrong"


# yes/no answers


def test_scores_of_well_formed_answers_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    answers, expected = rng.integers(2, size=(2, 40)).tolist()
    metric = YesNo()
    result = metric.compute(
        predictions=[("no", "yes")[answer] for answer in answers],
        references=[("no", "yes")[answer] for answer in expected],
    )
    precision, recall, f1, _ = precision_recall_fscore_support(expected, answers, average="binary")
    assert result["items"] == 40
    assert result["accuracy"] == pytest.approx(100 * np.mean(np.equal(answers, expected)))
    assert (result["precision"], result["recall"], result["f1"]) == pytest.approx(
        (100 * precision, 100 * recall, 100 * f1)
    )
    assert result["malformed"] == 0
    assert metric.count_keys == {"items"}
    assert list(metric.labels) == ["items", "accuracy", "precision", "recall", "f1", "malformed"]


def test_the_outcomes_of_answers_are_counted_item_by_item() -> None:
    """True yes, false yes, false no, true no, malformed items, and those of them whose reference is yes."""
    rows = {
        ("yes, no, Yes., NO!", "yes, yes, no, no"): [1, 1, 1, 1, 0, 0],
        ("是。，不", "是，不"): None,
        ("yes", "yes, no, yes"): [0, 0, 0, 0, 3, 2],
        ("yes, no, no, yes, yes", "yes, no, no, no, no"): [1, 2, 0, 2, 0, 0],
        ("perhaps", "no"): [0, 0, 0, 0, 1, 0],
        ("yes, perhaps", "yes, yes"): [0, 0, 0, 0, 2, 2],
        ("yes..", "yes"): [0, 0, 0, 0, 1, 1],
        ("y.es", "yes"): [0, 0, 0, 0, 1, 1],
        ("", "yes"): [0, 0, 0, 0, 1, 1],
        ("yes", "what?"): [0, 0, 0, 0, 1, 0],
        (" no 、 yes ", "no, no"): [0, 1, 0, 1, 0, 0],
    }
    for pair, expected in rows.items():
        metric = YesNo() if expected else YesNo(yes="是", no="不")
        statistics = metric.extract_statistics([pair[0]], [pair[1]])
        assert statistics.dtype == np.float64
        assert statistics.tolist() == [expected or [1, 0, 0, 1, 0, 0]], pair


def test_malformed_answers_are_wrong_and_missed() -> None:
    result = YesNo().compute(predictions=["yes", "maybe", "no", "x"], references=["yes", "yes", "yes", "no"])
    f1 = 100 * 2 * 1 / (1 + 3)
    expected = {"items": 4, "accuracy": 25, "precision": 100, "recall": 100 / 3, "f1": f1, "malformed": 50}
    assert {key: result[key] for key in expected} == pytest.approx(expected)
    nothing = YesNo().compute_scores(np.zeros(6))
    assert {key: float(value) for key, value in nothing.items()} == dict.fromkeys(expected, 0.0)
    table = YesNo().compute_scores(np.array([[[1.0, 0, 0, 1, 0, 0], [0, 0, 2, 0, 2, 0]]]))
    assert table["accuracy"].tolist() == [[100, 0]]
    assert table["recall"].tolist() == [[100, 0]]


# context-bound clips


def test_a_reading_is_correct_as_a_word_without_the_other_readings() -> None:
    for hypothesis, expected in (
        ("He hides the SPADE.", True),
        ("He hides the spades", False),
        ("The spade, the Pan", False),
        ("the spades-pan spade", False),
        ("", False),
        ("spade_ spade", True),
    ):
        assert is_correct_reading(hypothesis, "Spade", ["PAN", "drum"]) is expected, hypothesis
    metric = ContextBoundAccuracy()
    marks = [ContextBound("window", "pan", ("drum",)), None, ContextBound("window", "pan", ())]
    statistics = metric.extract_statistics(["a pan", "a pan", "a drum"], marks)
    assert statistics.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert metric.compute_scores(statistics.sum(axis=0)) == {"context_bound_accuracy": 50}
    table = metric.compute_scores(statistics)["context_bound_accuracy"]
    np.testing.assert_array_equal(table, [100, np.nan, 0])
    result = metric.compute(predictions=["a pan", "pan drum"], references=["pan", "pan"], others=[["drum"], ["drum"]])
    assert result == {"context_bound_accuracy": 50.0, "signature": metric.signature}
    with pytest.raises(ValueError, match="shorter"):
        metric.compute(predictions=["a"], references=["pan", "pan"], others=[["drum"]])
    with pytest.raises(ValueError, match=r"longer|shorter"):
        metric.extract_statistics(["a", "b"], [None])


# the list, and what all metrics share


def test_the_list_of_metrics() -> None:
    """Names of keys and options are part of scores.json and of the command line."""
    rows = {
        "bleu": ("Bleu", "translations", None, True, ["bleu1", "bleu2", "bleu3", "bleu4"]),
        "chrf": ("Chrf", "translations", None, True, ["chrf2"]),
        "chrf++": ("ChrfPlusPlus", "translations", None, False, ["chrf++"]),
        "ter": ("Ter", "translations", None, False, ["ter"]),
        "rougeL": ("RougeL", "translations", None, True, ["rougeL"]),
        "rougeL_mscoco": ("RougeLMscoco", "translations", None, True, ["rougeL_mscoco"]),
        "rougeL_seq2seq": ("RougeLSeq2seq", "translations", None, True, ["rougeL_seq2seq"]),
        "wer": ("Wer", "translations", None, False, ["wer"]),
        "meteor": ("Meteor", "translations", "--meteor", True, ["meteor"]),
        "rbleu": ("ReducedBleu", "translations", "--stop-list", True, ["rbleu", "rbleu_pairs"]),
        "bleurt": ("Bleurt", "translations", "--bleurt", True, ["bleurt"]),
        "comet": ("Comet", "translations", "--comet", True, ["comet"]),
        "exact_match": ("ExactMatch", "translations", None, True, ["exact_match"]),
        "context_bound": ("ContextBoundAccuracy", "marks", None, True, ["context_bound_accuracy"]),
        "yes_no": (
            "YesNo",
            "answers",
            None,
            True,
            ["items", "accuracy", "precision", "recall", "f1", "malformed"],
        ),
    }
    assert {
        key: (entry.metric.__name__, entry.input_kind, entry.option, entry.in_tables, list(entry.metric.labels))
        for key, entry in METRICS.items()
    } == rows
    labels = "BLEU-1 BLEU-2 BLEU-3 BLEU-4 chrF2 chrF++ TER ROUGE-L WER METEOR rBLEU BLEURT COMET items accuracy F1"
    assert set(labels.split()) < set(all_metrics.LABELS.values())
    assert {
        all_metrics.LABELS[key]
        for key in ("rougeL_mscoco", "rougeL_seq2seq", "rbleu_pairs", "exact_match", "malformed")
    } == {"ROUGE-L (mscoco)", "ROUGE-L (seq2seq)", "rBLEU pairs", "exact %", "malformed %"}
    assert all_metrics.LABELS["context_bound_accuracy"] == "context-bound %"
    assert {"precision", "recall"} <= set(all_metrics.LABELS.values())
    assert {"rbleu_pairs", "items"} == all_metrics.COUNT_KEYS
    assert {"rougeL", "rougeL_mscoco", "rougeL_seq2seq"} == all_metrics.ROUGE_KEYS
    assert (
        *(
            "bleu1",
            "bleu2",
            "bleu3",
            "bleu4",
            "chrf2",
            "rougeL",
            "rougeL_mscoco",
            "rougeL_seq2seq",
            "meteor",
            "rbleu",
        ),
        *("bleurt", "comet", "exact_match", "context_bound_accuracy"),
        *("items", "accuracy", "precision", "recall", "f1", "malformed"),
    ) == all_metrics.TABLE_KEYS
    assert [format_score("items", 12.0), format_score("bleu4", 12.3456), format_score("rbleu_pairs", 3.0)] == [
        "12",
        "12.35",
        "3",
    ]


def test_scores_of_chosen_clips_are_those_of_their_sums() -> None:
    metric = Wer()
    values = np.array([[1.0, 2.0], [0.0, 2.0], [3.0, 4.0]])
    statistics = MetricStatistics(metric, values)
    assert statistics.compute_scores() == {"wer": 50.0}
    assert statistics.compute_scores([0, 1]) == {"wer": 25.0}
    assert statistics.compute_scores(iter([2, 2])) == {"wer": 75.0}  # type: ignore[arg-type]
    assert isinstance(statistics.compute_scores()["wer"], float)


def test_results_have_python_numbers_and_the_signature() -> None:
    result = Bleu().compute(predictions=["a b"], references=["a b"], unused=1)
    assert list(result) == ["bleu1", "bleu2", "bleu3", "bleu4", "signature"]
    assert all(type(result[f"bleu{order}"]) is float for order in (1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"^1 hypotheses, 2 references: give one for each\.$"):
        Bleu().compute(predictions=["a"], references=["a", "b"])
    for metric in (Wer(), Ter(), RougeL(), ExactMatch(), YesNo()):
        for texts in ((["a"], ["a", "b"]), (["a", "b"], ["a"])):
            with pytest.raises(ValueError, match=r"shorter|longer|size"):
                metric.extract_statistics(*texts)


def test_the_columns_and_defaults_of_a_metric() -> None:
    assert Metric.columns == {"predictions": "string", "references": "string"}
    assert ContextBoundAccuracy.columns == {"predictions": "string", "references": "string", "others": ["string"]}
    assert Metric.count_keys == frozenset()
    assert not Metric.lower_is_better
    assert Bleu().preset == Preset()
    assert Bleu(GERMAN).preset is GERMAN
    for entry in METRICS.values():
        if issubclass(entry.metric, TextMetric) and entry.option is None:
            assert entry.metric(GERMAN).preset is GERMAN
