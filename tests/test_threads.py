"""How many cores there are to use, as a container or the parent process says."""

import builtins
import io
import os
from typing import Any

import pytest

from src.support import threads


@pytest.fixture(autouse=True)
def _sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_most_cores", None)
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(48)))


@pytest.mark.parametrize(("quota", "cores"), [("200000 100000", 2), ("max 100000", 48)])
def test_a_containers_quota_counts(quota: str, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/sys/fs/cgroup/cpu.max"
    exists, opens = os.path.exists, builtins.open

    def opened(name: Any, *arguments: Any, **named: Any) -> Any:
        return io.StringIO(quota) if name == path else opens(name, *arguments, **named)

    monkeypatch.setattr(os.path, "exists", lambda name: name == path or exists(name))
    monkeypatch.setattr(builtins, "open", opened)
    assert threads.available_cores() == cores


def test_so_does_what_the_parent_leaves() -> None:
    threads.use_at_most(3)
    assert threads.available_cores() == 3
    threads.use_at_most(0)
    assert threads.available_cores() == 1


def test_a_block_may_leave_cores_for_a_while() -> None:
    with threads.at_most(2):
        assert threads.available_cores() == 2
    assert threads.available_cores() == 48
