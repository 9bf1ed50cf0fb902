"""The `digitlab` command: one module for each family of subcommands; errors become messages here.

Nothing imports this room. It imports nothing slow: what a subcommand needs is imported when it runs.
Start with train.py.
"""

import atexit
import gc
import os
import select
import sys
import threading
from collections.abc import Sequence
from typing import Any

import click

from digitlab import __version__
from digitlab.cli import compare, config, model, recorded, train
from digitlab.cli.completion import register_shells
from digitlab.cli.project import commands as project
from digitlab.cli.store import annotate, cleaning, importing, listing
from digitlab.errors import DigitlabError, Interrupted, machine_refusal
from digitlab.text.terminal import echo

FAMILIES = (
    *(train, recorded, listing, annotate, cleaning, importing),
    *(config, compare, model, project),
)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MAX_LINE = 1000  # of a message, in characters: what was given may be of any length
EPILOG = """\b
Examples:
  digitlab train model=cnn epochs=5
  digitlab train experiment=cnn_best seed=1
  digitlab sweep model=cnn,logistic_regression 'seed=range(3)'
  digitlab sweeps
  digitlab config model=cnn optimizer=sgd --sources
  digitlab runs --study quickstart
  digitlab show 3f2a91c0
  digitlab reproduce 3f2a91c0
  digitlab ui
"""


class Commands(click.Group):
    """Group of subcommands whose system errors (no memory, no space, no threads) become one message.

    They are caught before click sees them: click takes every broken pipe for standard output's, and
    every end of a stream for Ctrl-C.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            if _can_start_threads():
                raise
            raise DigitlabError("the system gives no more threads (ulimit -u)") from None
        except Exception as error:
            if isinstance(error, BrokenPipeError) and (unread := [*filter(_is_unread, (1, 2))]):
                for descriptor in unread:  # `digitlab runs | head`
                    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
                sys.exit(0)
            refusal = machine_refusal(error)
            if refusal is None:
                raise
            raise DigitlabError(refusal) from error


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="digitlab")
def cli() -> None:
    """Train, record and compare handwritten-digit experiments.

    Exit codes: 0 done, 1 a run failed, 2 a mistake on the command line or in conf/, 3 data missing or
    damaged, 4 the tracking store failed, 129/130/143 stopped by SIGHUP/Ctrl-C/SIGTERM.
    """


@cli.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def print_completion(shell: str) -> None:
    """Print the TAB completion script of a shell.

    For bash: eval "$(digitlab completion bash)"
    """
    from digitlab.cli.completion import script

    echo(script(cli, shell))


for family in FAMILIES:
    for command in family.COMMANDS:
        cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line; an error that a user can act on becomes one message and an exit code."""
    gc.set_threshold(100_000, 50, 100)  # what is imported stays: 0.3 s of fruitless collections less
    atexit.register(gc.freeze)  # the last ones, at the end of the process: 0.5 s less
    register_shells()
    never_proxy_loopback()
    try:
        cli.main(arguments, prog_name="digitlab", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        echo(error.format_message())
    except click.NoSuchOption as error:
        hint = " (knobs have no dashes: epochs=3)" if error.option_name.startswith("--") else ""
        _complain(f"{error.format_message()}{hint}")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _complain(error.format_message())
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except Interrupted as error:
        _complain("stopped")
        sys.exit(error.exit_code)
    except DigitlabError as error:
        _complain(str(error))
        sys.exit(error.exit_code)


def _can_start_threads() -> bool:
    """Without one OpenBLAS sends this process the signal that Ctrl-C sends."""
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True


def _is_unread(descriptor: int) -> bool:
    """Whether the other end of a pipe is closed."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def never_proxy_loopback() -> None:
    """Servers on this machine are asked directly, by us and by every library and process of ours."""
    variables = ("no_proxy", "NO_PROXY")  # libraries read the one or the other first
    given = [host for variable in variables for host in os.environ.get(variable, "").split(",") if host]
    hosts = ",".join(dict.fromkeys([*given, *LOOPBACK]))
    os.environ |= dict.fromkeys(variables, hosts)


def _complain(message: str) -> None:
    from digitlab.text.addresses import redacted  # 4 ms of every command's start

    for line in message.splitlines():
        shown = line if len(line) <= MAX_LINE else f"{line[:600]} ... {line[-300:]}"
        echo(f"digitlab: {redacted(shown)}", err=True)
