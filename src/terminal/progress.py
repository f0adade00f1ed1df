"""Shows how far training has come: on a bar in a terminal, as lines elsewhere."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from src.terminal.console import console, say
from src.training.training_run import Epoch

_LASTING_LINES = 10  # about how many epochs stay on a terminal beside the bar
_PLAIN_LINES = 20  # about how many epochs are shown where the output is not a terminal


@contextlib.contextmanager
def progress(epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """Give a function that shows an epoch.

    In a terminal it moves a bar and leaves a line every tenth of the epochs; elsewhere it prints a
    line now and then.
    """
    screen = console()
    if not screen.is_terminal:
        every = max(1, epochs // _PLAIN_LINES)

        def show(epoch: Epoch) -> None:
            if epoch.number % every == 0 or epoch.number in (1, epochs):
                say(_line(epoch, epochs))

        yield show
        return
    # The most important column first: a narrow terminal cuts on the right.
    columns = (
        TextColumn("{task.completed}/{task.total}", markup=False),
        BarColumn(10),
        TimeRemainingColumn(),
        TextColumn("{task.fields[scores]}", markup=False),
    )
    every = max(1, epochs // _LASTING_LINES)
    with _bar(screen, *columns) as bar:
        task = bar.add_task("", total=epochs, scores="")

        def show_on_bar(epoch: Epoch) -> None:
            bar.update(task, completed=epoch.number, scores=_short_line(epoch))
            if epoch.number % every == 0 or epoch.number == epochs:
                screen.print(Text(_line(epoch, epochs)))

        yield show_on_bar


@contextlib.contextmanager
def sweep_progress(epochs: int) -> Iterator[Callable[[int], None]]:
    """Give a function that adds finished epochs, of ``epochs`` in the whole sweep, to a bar.

    Where the output is not a terminal there is no bar.
    """
    screen = console()
    if not screen.is_terminal:
        yield lambda done: None
        return
    columns = (
        TextColumn("{task.completed}/{task.total} epochs", markup=False),
        BarColumn(30),
        TimeRemainingColumn(),
    )
    with _bar(screen, *columns) as bar:
        task = bar.add_task("", total=epochs)
        yield lambda done: bar.advance(task, done)


def _bar(screen: Console, *columns: ProgressColumn) -> Progress:
    """Return a bar that disappears at its end."""
    return Progress(*columns, console=screen, transient=True)


def _line(epoch: Epoch, epochs: int) -> str:
    scores = "  ".join(
        f"{name} {score.loss:.4f} {score.accuracy:.2%}" for name, score in epoch.scores.items()
    )
    return f"epoch {epoch.number}/{epochs}  {scores}"


def _short_line(epoch: Epoch) -> str:
    """Return the scores with the training loss alone, so that the bar fits into 80 columns."""
    accuracies = "  ".join(f"{name} {score.accuracy:.2%}" for name, score in epoch.scores.items())
    return f"loss {epoch.scores['train'].loss:.4f}  {accuracies}"
