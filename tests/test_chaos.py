"""Half a minute of ``make chaos``, on a private database of the kind that the other tests use."""

import subprocess
import sys

import pytest
from django.db import connection

from .workers import ROOT


@pytest.mark.long
def test_half_a_minute_of_chaos_loses_nothing() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "30", "--database", connection.vendor]
    done = subprocess.run(
        command, cwd=ROOT, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout  # its seed is there, first and last
