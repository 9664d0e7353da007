"""How a command ends: well, with what is wrong in one line, or by Ctrl-C."""

from __future__ import annotations

import errno
import sys
from traceback import walk_tb
from typing import Any

import click

from quantal.errors import MissingLibraryError, QuantalError, SaveError

_BASE = ("numpy", "numba", "scipy", "h5py", "pyabf", "matplotlib")  # what may not load
STOPPED = 130  # exit code of Ctrl-C, as shells have it


class Commands(click.Group):
    """Commands whose errors, where a user can mend them, are one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run what was typed."""
        try:
            return super().invoke(ctx)
        except QuantalError as error:
            say_error(str(error))
            ctx.exit(self.exit_code(error))
        except KeyboardInterrupt:
            say_stopped("stopped; what was not finished is not written.")
            ctx.exit(STOPPED)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read the output has left
                raise
            say_error(_refused(error))
            ctx.exit(SaveError.exit_code)
        except ImportError as error:
            say_error(_not_loading(error))
            ctx.exit(MissingLibraryError.exit_code)

    @staticmethod
    def exit_code(error: QuantalError) -> int:
        """The exit code of an error."""
        return error.exit_code


def say_error(text: str) -> None:
    """What is wrong, in one line on stderr."""
    click.echo(f"error: {text}", err=True)


def say_stopped(text: str) -> None:
    """That Ctrl-C has ended it, in a line of its own."""
    click.echo(f"\n{text}" if sys.stderr.isatty() else text, err=True)


def _refused(error: OSError) -> str:
    """What the system refused, and what to do."""
    from quantal.save import reason

    if any(frame.f_code is click.echo.__code__ for frame, _ in walk_tb(error.__traceback__)):
        return f"the output cannot be written: {reason(error)}"
    where = f"{error.filename} cannot be read or written: " if error.filename else ""
    return f"{where}{reason(error)}"


def _not_loading(error: ImportError) -> str:
    """What of the base dependencies is missing or broken, and what to type."""
    known = sorted({(error.name or "").partition(".")[0]} & set(_BASE))
    return (
        f"{known[0] if known else 'a library'} is missing or does not load ({error}). Type: "
        f"python -m pip install -U --force-reinstall {' '.join(known or _BASE)}"
    )
