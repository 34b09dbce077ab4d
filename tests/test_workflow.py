"""What `make` does after a kill, beside another one, and when something fails."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import PROJECT

pytestmark = pytest.mark.slow

SNAKEFILE = """
rule slow:
    output: update("slow.txt")
    shell: "touch begun; [ -e quick ] || sleep 60; echo made >> {output}"
rule failing:
    output: "failing.txt"
    log: "failing.log"
    shell: "echo the reason > {log}; exit 1"
"""


@pytest.fixture
def start(tmp_path):
    """Start a target of the Snakefile above in a process group of its own."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)

    def begin(target):
        return subprocess.Popen(
            [sys.executable, "-m", "fer_lib.extras.workflow", "--show-failed-logs", "--cores", "1", target],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(PROJECT)}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return begin


def wait_for(path):
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path.name} was not made within a minute")


def kill(process, sent):
    os.killpg(process.pid, sent)
    process.communicate()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGHUP])
def test_after_a_kill_the_same_command_goes_on(start, tmp_path, sent):
    process = start("slow.txt")
    wait_for(tmp_path / "begun")
    kill(process, sent)
    (tmp_path / "quick").touch()
    process = start("slow.txt")
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0 and (tmp_path / "slow.txt").read_text() == "made\n", error
    assert error == ""


def test_a_second_make_waits_for_the_first_and_says_so(start, tmp_path):
    first = start("slow.txt")
    wait_for(tmp_path / "begun")
    second = start("slow.txt")
    assert second.stderr.readline() == "another make is at work here; waiting for it\n"
    kill(first, signal.SIGTERM)
    (tmp_path / "quick").touch()
    second.communicate(timeout=120)
    assert second.returncode == 0 and (tmp_path / "slow.txt").exists()


@pytest.mark.parametrize(
    ("target", "message"), [("failing.txt", "the reason"), ("nothing.txt", "No rule to produce nothing.txt")]
)
def test_a_failure_says_what_it_is(start, target, message):
    process = start(target)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 1 and message in error


def test_an_older_python_is_refused_before_anything_is_installed(tmp_path):
    (tmp_path / "old").write_text('#!/bin/sh\nexec python3 -c "import sys; sys.version_info = (3, 10, 0); $2"\n')
    (tmp_path / "old").chmod(0o755)
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    command = ["make", "PYTHON=./old", ".venv/ready"]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True)
    assert "Python 3.11 or newer is needed, and ./old is 3.10: name another" in done.stderr
    assert done.returncode and not (tmp_path / ".venv").exists()


def test_every_pinned_version_has_hashes_and_no_index_is_named():
    text = (PROJECT / "requirements.txt").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) > 100 and "://" not in text
    assert all(
        re.match(r"[a-z0-9._-]+==[\w.]+( ; .*?)?(\s+--hash=sha256:[0-9a-f]{64})+$", line, re.I) for line in lines
    )
    assert any(line.startswith("setuptools==") for line in lines), "which builds the package"
