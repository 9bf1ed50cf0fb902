"""Every fault that we know is injected by some test."""

import re

from tests.faults.table import FAULTS
from tests.support.cli import CHECKOUT


def test_each_has_a_test_and_no_test_names_another() -> None:
    named = {
        number
        for file in CHECKOUT.glob("tests/**/test_*.py")
        for mark in re.findall(r"mark\.fault\(([^)]*)\)", file.read_text())
        for number in re.findall(r'"(F\d+)"', mark)
    }
    assert sorted(named) == sorted(FAULTS)
