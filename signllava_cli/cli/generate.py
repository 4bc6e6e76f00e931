"""`signllava generate`: translate a split."""

import json
from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import (
    LaunchOption,
    MachineRankOption,
    MainProcessIPOption,
    MainProcessPortOption,
    NumMachinesOption,
    NumProcessesOption,
    SetOption,
    launch_overrides,
)

DECODING, CONTEXT, CONTROLS, LAUNCH = "Decoding", "Context", "Tasks and controls", "Many processes"


def generate(
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", "-c", help="A run (its best checkpoint) or a step folder.")
    ],
    split: Annotated[str | None, typer.Option(help="Which split to translate. Default: the recipe's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the predictions. Default: below the run.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace predictions made with other settings.")] = False,
    context: Annotated[
        int | None, typer.Option(min=0, help="Context window N: the last N sentences.", rich_help_panel=CONTEXT)
    ] = None,
    prelude: Annotated[
        int | None, typer.Option(min=0, help="Prelude M: the first M sentences.", rich_help_panel=CONTEXT)
    ] = None,
    context_source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="none, gold, predicted or prepared:FILE. Repeatable.", rich_help_panel=CONTEXT
        ),
    ] = None,
    context_from: Annotated[
        str | None,
        typer.Option(
            metavar="SPLIT,SPLIT...",
            help="Gold context also comes from these splits, where a benchmark divides recordings over splits.",
            rich_help_panel=CONTEXT,
        ),
    ] = None,
    missing_context: Annotated[
        str | None,
        typer.Option(
            metavar="skip|gold",
            help="What clips see of one before them that has no features: nothing, or its reference.",
            rich_help_panel=CONTEXT,
        ),
    ] = None,
    beams: Annotated[
        int | None, typer.Option(min=1, help="Beam width; 1 is greedy.", rich_help_panel=DECODING)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Sample at this temperature instead.", rich_help_panel=DECODING)
    ] = None,
    num_return_sequences: Annotated[
        int | None, typer.Option(min=1, help="Hypotheses kept of each clip, with scores.", rich_help_panel=DECODING)
    ] = None,
    mbr: Annotated[
        str | None,
        typer.Option(
            metavar="chrf|bleu", help="Of these, choose that which agrees with the others.", rich_help_panel=DECODING
        ),
    ] = None,
    abstain: Annotated[
        float | None,
        typer.Option(
            metavar="BELOW", help="Leave empty what has a lower mean log-probability.", rich_help_panel=DECODING
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Length limit, in tokens.", rich_help_panel=DECODING)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of samples, questions and shuffling.", rich_help_panel=DECODING)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Clips decoded together.", rich_help_panel=DECODING)
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="TASK",
            help="translation, one_word_present, multi_word_present or is_reversed.",
            rich_help_panel=CONTROLS,
        ),
    ] = None,
    task_prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A question of your own.", rich_help_panel=CONTROLS)
    ] = None,
    ablate_stream: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Leave a stream out. Repeatable.", rich_help_panel=CONTROLS),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="own|shuffled|zero", help="Show another clip's frames, or zeros.", rich_help_panel=CONTROLS
        ),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="This is job I of an array of N.", rich_help_panel=LAUNCH)
    ] = None,
    launch: LaunchOption = None,
    num_processes: NumProcessesOption = None,
    num_machines: NumMachinesOption = None,
    machine_rank: MachineRankOption = None,
    main_process_ip: MainProcessIPOption = None,
    main_process_port: MainProcessPortOption = None,
    set_: SetOption = None,
) -> None:
    """Translate a split, with no context, gold context, or the model's own predictions as context.

    Settings default to the recipe in the checkpoint. A killed run goes on where it stopped.
    """
    from signllava_cli.model.checkpoint import GENERATION_OVERRIDES, checkpoint_recipe, find_checkpoint

    options = {
        "context.window": context,
        "context.prelude": prelude,
        "generate.split": split,
        "generate.missing_context": missing_context,
        "generate.context_from": None if context_from is None else [name.strip() for name in context_from.split(",")],
        "generate.num_beams": beams,
        "generate.temperature": temperature,
        "generate.num_return_sequences": num_return_sequences,
        "generate.mbr": mbr,
        "generate.abstain": abstain,
        "generate.max_new_tokens": max_new_tokens,
        "generate.seed": seed,
        "generate.batch_size": batch_size,
        "generate.task": task,
        "generate.task_prompt": task_prompt,
        "generate.ablate": ablate_stream,
        "generate.features": features,
    }
    overrides = [
        *GENERATION_OVERRIDES,
        *(set_ or []),
        *launch_overrides(launch, num_processes, num_machines, machine_rank, main_process_ip, main_process_port),
        *(f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None),
    ]
    found = find_checkpoint(checkpoint)
    recipe = checkpoint_recipe(found, overrides)

    from signllava_cli.launch import run_or_launch

    def translate() -> None:
        from signllava_cli.generation.generate import generate

        generate(recipe, found, context_source or [recipe.generate.context_source], out, overwrite, shard)

    run_or_launch(recipe.launch, translate)
