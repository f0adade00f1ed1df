"""Ends a command as its errors and signals ask: with a message and an exit code, in order."""

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator

from src.support import signals
from src.support.errors import UserError
from src.terminal.console import never_fail, problem


@contextlib.contextmanager
def ending_in_order(*, told: bool = False) -> Iterator[None]:
    """Run an entry point's work in the block, and exit as it ends.

    Exit codes: 2 after a UserError, which is printed; 128 plus its number if a signal ended the
    block: 130 for Ctrl-C. No signal and no closed pipe shows a traceback.

    Args:
        told: Whether to print that a signal ended the work.
    """
    signals.end_in_order_on_signals()
    never_fail()
    # Python's shutdown looks for garbage in all that was imported, which takes over a second.
    atexit.register(gc.freeze)
    try:
        yield
    except UserError as error:
        if signals.exit_code() is None:
            problem(str(error))
            sys.exit(2)
    except BaseException:
        # Whatever else the signal's exception has caused on its way, its code counts.
        if signals.exit_code() is None:
            raise
    finally:
        signals.leave_at_once_on_signals()  # Python's shutdown shows tracebacks, too
    code = signals.exit_code()
    if code is not None:
        if told:
            problem("interrupted" if code == 130 else "terminated by a signal")
        sys.exit(code)
