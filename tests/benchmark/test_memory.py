"""A process may be held to so much memory above what it has."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
from whitebench import memory
ballast = bytearray(300 * 2**20)  # what it has before counts for nothing
memory.limit_memory(0.25)
small = bytearray(100 * 2**20)
try:
    large = bytearray(200 * 2**20)
except MemoryError:
    print("refused")
memory.lift_limit()
large = bytearray(200 * 2**20)
print("lifted")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a process's private memory")
def test_an_allocation_beyond_the_limit_fails_until_it_is_lifted() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused", "lifted"]
