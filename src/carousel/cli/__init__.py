"""The command line: one verb per file; each parses, calls one library function and prints.

A verb's module imports only `typer` and the standard library at its top; torch and the rest are imported inside the
verb, when it runs, so that ``carousel --help`` stays instant.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from carousel import __version__
from carousel.cli import (
    calibrate,
    caption,
    cells,
    chat,
    compare,
    doctor,
    ensemble,
    evaluate,
    gallery,
    generate,
    init,
    inspect,
    predict,
    reproduce,
    train,
)
from carousel.errors import CarouselError

# Every verb, in the order in which `carousel --help` lists them: one line here and one file beside this one.
VERBS = (
    caption.caption,
    gallery.gallery,
    train.train,
    predict.predict,
    chat.chat,
    generate.generate,
    evaluate.evaluate,
    calibrate.calibrate,
    ensemble.ensemble,
    init.init,
    cells.cells,
    compare.compare,
    inspect.inspect,
    reproduce.reproduce,
    doctor.doctor,
)

app = typer.Typer(
    name="carousel",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,  # rich's help costs more time than everything else in `--help` together
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in VERBS:
    app.command()(verb)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def carousel(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Learn from sequences with recurrent networks; caption a photo with one command."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line on `args` (by default the process's own) and return the exit code.

    An error that Carousel raises on purpose becomes its one line on standard error and its own exit code. A usage
    error is one line too, and 2; Ctrl-C is 130; a reader that went away (``carousel ... | head``) is 1, quietly. A
    verb that was only partly successful says so with ``raise typer.Exit(code)``.

    >>> main(["--version"])
    0.1.0
    0
    """
    try:
        code = app(args, prog_name="carousel", standalone_mode=False)
        sys.stdout.flush()  # a reader that went away must show up here, not when the interpreter ends
    except CarouselError as error:
        return _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        return _fail(_one_line(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def _fail(line: str, exit_code: int) -> int:
    print(line, file=sys.stderr)
    return exit_code


def _one_line(error: typer.TyperException) -> str:
    """`error`, a wrong use of the command line, on one line, with the command whose help explains the right one."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "carousel"
    what = " ".join(error.format_message().split()).removesuffix(".")
    return f"{command}: {what}; see {command} --help"
