"""How many processor cores this process may use: those it may run on, within its container's quota."""

import os
from collections.abc import Iterator
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """At least 1; of a quota of 2.5 cores 2. root: the folder that holds proc/ and sys/."""
    return max(int(min([len(os.sched_getaffinity(0)), *_quotas(root)])), 1)


def _quotas(root: Path) -> Iterator[float]:
    """In cores, of this process's control groups and of those around them."""
    for group in _groups(root):
        version_1 = _text(group / "cpu.cfs_quota_us"), _text(group / "cpu.cfs_period_us")
        match (_text(group / "cpu.max") or " ".join(version_1)).split():
            case [quota, period] if quota.isdigit() and period.isdigit():  # else "max", or -1
                yield int(quota) / int(period)


def _groups(root: Path) -> Iterator[Path]:
    """A container often sees its own group as the outermost one, whatever its path."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            for name in {controllers, "cpu" if controllers else ""}:
                outermost = root / "sys/fs/cgroup" / name
                group = outermost / path.lstrip("/")
                yield from (g for g in (group, *group.parents) if g.is_relative_to(outermost))


def _text(file: Path) -> str:
    """Nothing where there is no such file."""
    try:
        return file.read_text()
    except OSError:
        return ""
