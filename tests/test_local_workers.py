"""Workers of a sweep on this machine: forked ones, which need no second to start."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from src.sweep import executors
from src.sweep.executors import LocalExecutor, WorkerDied
from tests.test_stacked import labour


def fork() -> Any:
    """Forked workers run the code of this process, as it is."""
    return multiprocessing.get_context("fork")


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """Without this, a hang-up is ignored under nohup, in the workers too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def work_through(
    tasks: list[Any], work: Any = labour, hear: Callable[[Any], None] = lambda news: None
) -> list[Any]:
    with LocalExecutor(2, fork()) as executor:
        futures = [executor.submit(work, task) for task in tasks]
        assert set(executor.as_completed(hear)) == set(futures)
    return [future.exception() or future.result() for future in futures]


@forks
def test_a_worker_that_fails_takes_its_own_task_with_it() -> None:
    heard: list[int] = []
    results = work_through([0, 1, 2, 3, 4, 5], hear=heard.append)
    assert sorted(heard) == [0, 1, 2, 3, 4, 5]
    assert [results[n][0] for n in (0, 4, 5)] == [0, 40, 50]
    assert str(results[1]) == "ValueError: one is wrong"
    assert isinstance(results[2], WorkerDied)
    assert results[2].code == -9
    assert "by signal 9" in str(results[2])
    assert str(results[3]) == "TypeError: can't be pickled"


def surroundings(task: Any, tell: Any) -> Any:
    return str(Path.cwd()), dict(os.environ), multiprocessing.parent_process() is not None


@forks
def test_workers_begin_in_the_folder_and_with_the_environment_of_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINE", "1")
    ((folder, environment, child),) = work_through([0], surroundings)
    assert (folder, environment, child) == (str(tmp_path), dict(os.environ), True)
    with LocalExecutor(1, fork(), ("/", {"A": "b"})) as executor:
        future = executor.submit(surroundings, 0)
        assert list(executor.as_completed(lambda _: None)) == [future]
    assert future.result()[:2] == ("/", {"A": "b"})


def quits(task: int, tell: Any) -> None:
    os._exit(task)


@forks
def test_how_a_worker_died_is_told() -> None:
    (died,) = work_through([7], quits)
    assert (died.code, "with exit code 7" in str(died)) == (7, True)


def counts(task: Any, tell: Any) -> int:
    """Return how many workers there are at the same time."""
    (task / str(os.getpid())).touch()
    time.sleep(0.3)
    found = len(list(task.iterdir()))
    (task / str(os.getpid())).unlink()
    return found


@forks
def test_no_more_workers_run_at_a_time_than_were_asked_for(tmp_path: Path) -> None:
    assert max(work_through([tmp_path] * 4, counts)) == 2


def waits(task: Path, tell: Any) -> None:
    try:
        for _ in range(3000):  # half a minute, should nothing end it
            tell("here")
            time.sleep(0.01)
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) else ""
        task.write_text(f"{type(error).__name__} {code}".strip())
        raise


@forks
@pytest.mark.parametrize(
    ("reason", "seen"),
    [
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(128 + signal.SIGHUP), "SystemExit 129"),
        (SystemExit(143), "SystemExit 143"),
        (ValueError(), "SystemExit 143"),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("hangs_up")
def test_what_ends_the_sweep_ends_its_workers_in_the_same_way(
    reason: BaseException, seen: str, tmp_path: Path
) -> None:
    def hear(news: Any) -> None:
        raise reason

    executor = LocalExecutor(1, fork())
    with pytest.raises(type(reason)), executor:  # noqa: PT012
        futures = [executor.submit(waits, tmp_path / str(n)) for n in range(2)]
        list(executor.as_completed(hear))
    assert (tmp_path / "0").read_text() == seen
    assert not (tmp_path / "1").exists()  # it had not begun
    assert all(future.cancelled() for future in futures)


def deaf(task: Any, tell: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(os.getpid())
    time.sleep(100)


@forks
def test_a_worker_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_CLOSING", 0.2)
    heard: list[int] = []

    def hear(news: int) -> None:
        heard.append(news)
        raise ValueError

    begin = time.monotonic()
    with pytest.raises(ValueError):  # noqa: PT011
        work_through([0], deaf, hear)
    assert 0.2 <= time.monotonic() - begin < 50
    assert not Path(f"/proc/{heard[0]}").exists()


def test_a_worker_that_can_not_be_started_fails_its_own_task() -> None:
    class Full:
        """A system without room for another process."""

        def __getattr__(self, name: str) -> Any:
            return getattr(fork(), name)

        def Process(self, **_: Any) -> Any:  # noqa: N802
            raise BlockingIOError(11, "Resource temporarily unavailable")

    full: Any = Full()
    with LocalExecutor(1, full) as executor:
        futures = [executor.submit(labour, n) for n in range(2)]
        assert list(executor.as_completed(lambda _: None)) == futures
    assert ["temporarily unavailable" in str(one.exception()) for one in futures] == [True, True]


def lead(task: Path) -> None:
    with LocalExecutor(1, fork()) as executor:
        executor.submit(waits, task)
        list(executor.as_completed(lambda _: task.with_name("begun").touch()))


@forks
def test_a_worker_whose_parent_is_killed_ends_in_order(tmp_path: Path) -> None:
    parent = fork().Process(target=lead, args=(tmp_path / "end",))
    parent.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    parent.kill()
    parent.join()
    while not (tmp_path / "end").exists() or not (tmp_path / "end").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (tmp_path / "end").read_text() == "SystemExit 143"
