"""`signllava eval`: score predictions."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import SetOption
from signllava_cli.errors import UserError, require_extra

FILES, METRICS, COUNTING, UNCERTAINTY = "What is scored", "Metrics", "Which clips count", "Uncertainty"


def evaluate(
    predictions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]FILE...",
            help="Predictions files or folders, Sign_LLaVA's JSON, CSV of uid,text; or a run. Files of one "
            "NAME are several seeds of one system.",
        ),
    ] = None,
    context_sources: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Of a run: generate what is missing under each, and compare.",
            rich_help_panel=FILES,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Of a run, with --context-sources. Default: the recipe's.", rich_help_panel=FILES),
    ] = None,
    set_: SetOption = None,
    references: Annotated[
        Path | None, typer.Option(help="A file with the references, of any of these kinds.", rich_help_panel=FILES)
    ] = None,
    hyp: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE", help="Plain text, a line a clip, with --ref. Repeatable.", rich_help_panel=FILES
        ),
    ] = None,
    ref: Annotated[Path | None, typer.Option(help="The references to --hyp.", rich_help_panel=FILES)] = None,
    preset: Annotated[
        str,
        typer.Option(metavar="NAME", help="Words of how2sign, phoenix14t, csl-daily.", rich_help_panel=METRICS),
    ] = "how2sign",
    stop_list: Annotated[
        Path | None,
        typer.Option(help="A file of words, one a line: also score reduced BLEU.", rich_help_panel=METRICS),
    ] = None,
    meteor: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A local copy of WordNet: also score METEOR.", rich_help_panel=METRICS),
    ] = None,
    bleurt: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A local copy of BLEURT-20: also score BLEURT.", rich_help_panel=METRICS),
    ] = None,
    comet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A local checkpoint of COMET: also score that.", rich_help_panel=METRICS),
    ] = None,
    missing: Annotated[
        str, typer.Option(metavar="empty|exclude", help="Clips without a hypothesis.", rich_help_panel=COUNTING)
    ] = "empty",
    intersection: Annotated[
        bool,
        typer.Option(
            "--intersection", help="Score the clips of which all files have a hypothesis.", rich_help_panel=COUNTING
        ),
    ] = False,
    resample: Annotated[
        str, typer.Option(metavar="recordings|clips", help="What is resampled.", rich_help_panel=UNCERTAINTY)
    ] = "recordings",
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000_000,
            help="Of the bootstrap; 0: no intervals, no comparisons.",
            rich_help_panel=UNCERTAINTY,
        ),
    ] = 1000,
    trials: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Of the randomization test.", rich_help_panel=UNCERTAINTY)
    ] = 10_000,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The system that the others are compared with. Default: the one without context, if there is one; "
            "else the first.",
            rich_help_panel=UNCERTAINTY,
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page: scores, charts, every clip.")] = None,
    charts: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Draw charts for papers, PNG files.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write a LaTeX table of the scores.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for scores.json, or a .json file. Default: beside the predictions.")
    ] = None,
) -> None:
    """Score predictions, with 95 % intervals; several are compared with a baseline, clip by clip.

    BLEU-1..4, chrF2, chrF++, TER, ROUGE-L, WER, exact match, accuracy on context-bound clips; for yes/no tasks
    accuracy, precision, recall and F1. Every figure stands in scores.json, with the signature of its variant. METEOR,
    BLEURT and COMET want data on this machine.
    """
    if charts:
        require_extra("plot", "--charts", "matplotlib")
    from signllava_cli.evaluation import evaluate
    from signllava_cli.evaluation.scoring import Scoring

    require_choice("--missing", missing, "empty", "exclude")
    require_choice("--resample", resample, "recordings", "clips")
    if 0 < samples < 20:
        raise UserError(
            f"--samples {samples}: an interval takes 20 at least; 0 leaves intervals and comparisons out."
        )
    scoring = Scoring(preset, stop_list, meteor, bleurt, comet, resample, samples, trials)  # type: ignore[arg-type]
    given = predictions or []
    if context_sources is None and (split is not None or set_):
        raise UserError("--split and --set are of what --context-sources generates; predictions are of one split.")
    if context_sources is not None:
        given = evaluate.generate_missing(given, context_sources.split(","), split, set_ or [])
    sources = evaluate.EvaluationInputs(given, hyp or [], ref, references, missing, intersection, baseline)  # type: ignore[arg-type]
    evaluate.evaluate(sources, scoring, evaluate.Outputs(out, latex, report, charts))


def require_choice(option: str, given: str, *known: str) -> None:
    """Check an option of a few words.

    Raises:
        UserError: it is another word.
    """
    if given not in known:
        raise UserError(f"{option} {given}: expected {' or '.join(known)}.")
