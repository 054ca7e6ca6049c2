"""The command ``sfa``."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path  # noqa: TC003, typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

app = typer.Typer(help="Foundation models for single-cell ATAC-seq.", no_args_is_help=True, add_completion=False)


@app.callback()
def _log_to_terminal() -> None:
    import logging

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("scfound_atac").setLevel(logging.INFO)


@contextmanager
def _without_traceback() -> Iterator[None]:
    """Show errors in input or files as one line, without a traceback."""
    try:
        yield
    except (ValueError, OSError, FloatingPointError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def pretrain(
    config: Annotated[Path, typer.Argument(help="YAML file; see the documentation on training.")],
    resume: Annotated[bool, typer.Option(help="Continue from the last checkpoint of the run if there is one.")] = True,  # noqa: FBT002
) -> None:
    """Pretrain a network on a corpus."""
    from .model import pretrain as run

    with _without_traceback():
        run(config, resume=resume)


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
