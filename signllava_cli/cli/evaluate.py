"""`signllava eval`: score predictions."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from signllava_cli.cli.options import SetOption
from signllava_cli.errors import UserError, require_extra

FILES, METRICS, CLIPS, UNCERTAINTY = "Files", "Metrics", "Clips", "Uncertainty"


def evaluate(
    predictions: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]FILE...",
            help="Predictions files or folders, Sign_LLaVA's JSON, CSV or TSV of uid and text; or a run. Files with "
            "one NAME are several seeds of one system.",
        ),
    ] = None,
    context_sources: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="With a run: generate missing predictions under each context source, and compare them.",
            rich_help_panel=FILES,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="With --context-sources. Default: the recipe's.", rich_help_panel=FILES),
    ] = None,
    set_: SetOption = None,
    references: Annotated[
        Path | None, typer.Option(help="A file with the references, of any of these formats.", rich_help_panel=FILES)
    ] = None,
    hyp: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FILE", help="Plain text, a line per clip, with --ref. Repeatable.", rich_help_panel=FILES
        ),
    ] = None,
    ref: Annotated[Path | None, typer.Option(help="The references of --hyp.", rich_help_panel=FILES)] = None,
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Tokenization of how2sign, phoenix14t or csl-daily.", rich_help_panel=METRICS
        ),
    ] = "how2sign",
    stop_list: Annotated[
        Path | None,
        typer.Option(
            help="Stop words, one per line, `#` begins a comment: also score reduced BLEU.",
            rich_help_panel=METRICS,
        ),
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
        typer.Option(metavar="FILE", help="A local checkpoint of COMET: also score COMET.", rich_help_panel=METRICS),
    ] = None,
    missing: Annotated[
        Literal["empty", "exclude"],
        typer.Option(help="How clips without a hypothesis count.", rich_help_panel=CLIPS),
    ] = "empty",
    intersection: Annotated[
        bool,
        typer.Option(
            "--intersection", help="Score only clips of which all files have a hypothesis.", rich_help_panel=CLIPS
        ),
    ] = False,
    resample: Annotated[
        Literal["recordings", "clips"],
        typer.Option(help="The units of resampling.", rich_help_panel=UNCERTAINTY),
    ] = "recordings",
    samples: Annotated[
        int,
        typer.Option(
            min=0,
            max=1_000_000,
            help="Number of bootstrap samples; 0: no intervals, no comparisons.",
            rich_help_panel=UNCERTAINTY,
        ),
    ] = 1000,
    trials: Annotated[
        int,
        typer.Option(
            min=1, max=1_000_000, help="Number of trials of the randomization test.", rich_help_panel=UNCERTAINTY
        ),
    ] = 10_000,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The system that the others are compared with. Default: the system without context, else the first.",
            rich_help_panel=UNCERTAINTY,
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML page: scores, charts, every clip.")] = None,
    charts: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Draw charts as PNG files.")] = None,
    latex: Annotated[Path | None, typer.Option(help="Write a LaTeX table of the scores.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for scores.json, or a .json file. Default: beside the predictions.")
    ] = None,
) -> None:
    """Score predictions, with 95 % intervals; compare several systems with a baseline, clip by clip.

    BLEU-1..4, chrF2, chrF++, TER, ROUGE-L, WER, exact match, accuracy on context-bound clips; for yes/no tasks
    accuracy, precision, recall and F1. scores.json has all scores, with the signature of each metric. METEOR, BLEURT
    and COMET need data on this machine.
    """
    if charts:
        require_extra("plot", "--charts", "matplotlib")
    from signllava_cli.evaluation import evaluate
    from signllava_cli.evaluation.results import ScoringConfig

    if 0 < samples < 20:
        raise UserError(f"--samples {samples}: an interval needs at least 20; 0 turns intervals and comparisons off.")
    metric_data = {"rbleu": stop_list, "meteor": meteor, "bleurt": bleurt, "comet": comet}
    config = ScoringConfig(
        preset=preset,
        metric_data={name: path.expanduser() for name, path in metric_data.items() if path is not None},
        resample=resample,
        num_samples=samples,
        num_trials=trials,
    )
    arguments = predictions or []
    if context_sources is None and (split is not None or set_):
        raise UserError("--split and --set need --context-sources: predictions that exist are of one split.")
    if context_sources is not None:
        arguments = evaluate.generate_missing(arguments, context_sources.split(","), split, set_ or [])
    inputs = evaluate.EvaluationInputs(
        predictions=arguments,
        hypotheses=hyp or [],
        hypothesis_references=ref,
        references=references,
        missing=missing,
        intersection=intersection,
        baseline=baseline,
    )
    outputs = evaluate.Outputs(scores=out, latex=latex, report=report, charts=charts)
    evaluate.evaluate(inputs, config, outputs)
