"""The command `signllava`: its subcommands, and the exit code of each kind of error."""

import os
import sys
from collections.abc import Callable

import typer

from signllava_cli import console
from signllava_cli._version import __version__
from signllava_cli.cli import (
    checkpoint,
    completion,
    demo,
    env,
    evaluate,
    finetune,
    generate,
    init,
    plot,
    prepare,
    pretrain,
    recipes,
    serve,
    study,
)
from signllava_cli.cli.command_map import format_command_map
from signllava_cli.cli.output_options import CommandGroup
from signllava_cli.errors import RunStopped, UserError, first_line, is_out_of_memory
from signllava_cli.preemption import is_launching

CUDA_ALLOCATOR_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")

app = CommandGroup(
    name="signllava",
    help="Sign-language translation with a large language model: prepare, pretrain, finetune, generate, eval.",
    add_completion=False,  # the command `completion` installs it: Typer's option completes nothing at zsh's first Tab
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(prepare.app, name="prepare")
app.command("init")(init.init)
app.command("pretrain")(pretrain.pretrain)
app.command("finetune")(finetune.finetune)
app.command("generate")(generate.generate)
app.command("eval")(evaluate.evaluate)
app.command("study")(study.study)
app.command("serve")(serve.serve)
app.command("plot")(plot.plot)
app.add_typer(recipes.app, name="recipes")
app.add_typer(checkpoint.app, name="checkpoint")
app.command("demo")(demo.demo)
app.command("env")(env.env)
app.command("completion")(completion.completion)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if show:
        typer.echo(f"signllava {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(format_command_map(__version__))


def _set_cuda_allocator() -> None:
    """Let torch's CUDA allocator grow its segments, for this process and its ranks, unless the user has set it up.

    Batches of ever other lengths would otherwise leave memory in pieces that no later batch fits into. torch reads
    the variable when CUDA starts; torch 2.8 knows only the second name and ignores the first.
    """
    if not any(variable in os.environ for variable in CUDA_ALLOCATOR_VARIABLES):
        os.environ[CUDA_ALLOCATOR_VARIABLES[0]] = "expandable_segments:True"


def run() -> None:
    """Run the command line, and exit with one of the codes of `signllava_cli.errors`."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the data loader forks after tokenizing
    _set_cuda_allocator()
    console.quiet_libraries()
    completion.register_completion()
    try:
        code = app(prog_name="signllava", standalone_mode=False)
    except UserError as error:
        console.error(*error.lines)
        code = error.exit_code
    except OSError as error:  # permission denied, disk full, name too long
        fix = ""
        if isinstance(error, FileExistsError) and error.filename and os.path.isfile(error.filename):
            fix = ", where a folder must be; remove the file, or name another folder"
        console.error(f"{error.filename or 'input or output'}: {error.strerror or error}{fix}")
        code = UserError.exit_code
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        console.error(
            f"out of memory ({first_line(error)}); lower train.micro_batch_size or train.max_tokens_per_batch in "
            "training, generate.batch_size or generate.max_tokens_per_batch in generation."
        )
        code = UserError.exit_code
    except RunStopped as stop:
        console.print_line(str(stop))
        code = stop.exit_code
    except typer.TyperException as error:  # wrong usage
        show: Callable[[], None] | None = getattr(error, "show", None)
        show() if show else console.error(error.format_message())
        code = error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.error("interrupted")
        code = 130
    if is_launching():  # Python's finalization would abort torch's threads and lose the exit code
        console.flush()
        os._exit(code or 0)
    sys.exit(code or 0)
