"""Command lines run in this process."""

import io
from contextlib import redirect_stderr, redirect_stdout

from vidreason import cli


def run(*arguments: object) -> tuple[int, str, str]:
    """Returns exit code, standard output and standard error of a command line."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def refused(*arguments: object) -> str:
    """Returns the one line with which a command line fails."""
    code, _, err = run(*arguments)
    assert code in (1, 2) and err.startswith("error: ") and err.count("\n") == 1, err
    return err
