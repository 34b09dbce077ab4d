"""What `make` does after a kill, beside another one, and when something fails."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fer_lib.extras.workflow import tell_steps
from tests.conftest import PROJECT

pytestmark = pytest.mark.slow

SNAKEFILE = """
rule slow:
    output: update("slow.txt")
    message: "being slow"
    shell: "touch begun; [ -e quick ] || sleep 60; echo made >> {output}"
rule failing:
    output: "failing.txt"
    log: "failing.log"
    shell: "echo the reason > {log}; exit 1"
rule cut:
    output: update("cut.txt")
    shell: "[ -e {output} ] || {{ echo made > {output}; kill -9 $$; }}"
rule piece:
    output: "{name}.piece"
    message: "making {wildcards.name}"
    shell: "touch {output}"
rule search:
    input: "a.piece", "b.piece", "c.piece"
"""


@pytest.fixture
def start(tmp_path):
    """Start a target of the Snakefile above, by the project's profile, in a process group of its own."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    shutil.copytree(PROJECT / "profiles/default", tmp_path / "profiles/default")

    def begin(target):
        return subprocess.Popen(
            [sys.executable, "-m", "fer_lib.extras.workflow", "--cores", "1", target],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(PROJECT)}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # which nohup would have it ignore
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
    assert error == "to do: 1 × slow\n[1/1] being slow\n"


def test_a_second_make_waits_for_the_first_and_says_so(start, tmp_path):
    first = start("slow.txt")
    wait_for(tmp_path / "begun")
    second = start("slow.txt")
    assert second.stderr.readline() == "another make is at work here; waiting for it\n"
    kill(first, signal.SIGTERM)
    (tmp_path / "quick").touch()
    second.communicate(timeout=120)
    assert second.returncode == 0 and (tmp_path / "slow.txt").exists()


def test_what_a_killed_step_has_made_is_there_for_the_next(start, tmp_path):
    """A run's record is whole when its run.json is there; without it the rest is taken for a damaged one."""
    for status in (1, 0):
        process = start("cut.txt")
        _, error = process.communicate(timeout=120)
        assert process.returncode == status and (tmp_path / "cut.txt").read_text() == "made\n", error


def test_each_step_is_told_with_the_time_left(start):
    process = start("search")
    _, error = process.communicate(timeout=120)
    todo, first, *others = error.splitlines()
    assert todo == "to do: 3 × piece" and re.fullmatch(r"\[1/3\] making \w", first), error
    for place, line in enumerate(others, start=2):
        assert re.fullmatch(rf"\[{place}/3\] making \w \(0:\d\d gone, about 0:\d\d left\)", line)
    assert len(others) == 2


def test_where_nothing_is_to_do_it_is_said(start, tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.piece").touch()
    _, error = start("search").communicate(timeout=120)
    assert error == "nothing to do: the trials asked for are on record\n"
    (tmp_path / "slow.txt").touch()
    _, error = start("slow.txt").communicate(timeout=120)
    assert error == "nothing to do: all is up to date\n"


def test_on_a_cluster_a_step_is_told_when_it_is_done_and_a_failed_log_as_it_is():
    ruler = "=" * 80
    lines = f"""Job stats:
job      count
-----  -------
run          2
runs         1
total        3

Job 1: training one
Job 1 has been submitted with SLURM jobid 7 (log: 7.log).
Job 2: training two
Error in rule run:
    jobid: 2
Logfile 8.log:
{ruler}
Job 0: training two
Nothing to be done
{ruler}
Trying to restart job 2.
Job 2: training two
[Thu Nov 26 13:47:27 2026]
Finished jobid: 1 (Rule: run)
1 of 3 steps (33%) done
"""
    told = "".join(tell_steps(lines.splitlines(keepends=True), "runs"))
    assert (
        told
        == f"""to do: 2 × run
[1/2] training one
[2/2] training two
Error in rule run:
    jobid: 2
Logfile 8.log:
{ruler}
Job 0: training two
Nothing to be done
{ruler}
Trying to restart job 2.
[2/2] training two
1 of 2 done: training one (0:00 gone, about 0:00 left)
"""
    )


def test_snakemake_trains_a_run_that_is_not_on_record(tmp_path):
    """It makes the run's folder before: an empty one is no damaged record."""
    command = ["snakemake", "--cores", "1", "--nolock", "--snakefile", PROJECT / "Snakefile", "--directory", tmp_path]
    command += ["--config", "data=drawn-few", "experiments=[b1_two_layer]", "seeds=[4]", "--", "runs"]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "FER_RUNS": str(tmp_path / "reports" / "runs")}
    done = subprocess.run(command, text=True, capture_output=True, env=environment | {"WANDB_MODE": "disabled"})
    record = tmp_path / "reports" / "runs" / "b1_two_layer" / "drawn-few-seed4" / "run.json"
    assert done.returncode == 0 and record.exists(), done.stderr[-2000:]


def test_no_drawn_faces_are_trained_on_in_place_of_fer2013(tmp_path):
    """`auto` would train on them, and record what was not asked for."""
    command = ["-c1", "--nolock", "--snakefile", f"{PROJECT / 'Snakefile'}", "--directory", f"{tmp_path}", "runs"]
    empty = f"from fer_lib import data; data.find_data = lambda: None; import snakemake.cli as c; c.main({command})"
    environment = {k: v for k, v in os.environ.items() if k != "FER_DATA"} | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run([sys.executable, "-c", empty], text=True, capture_output=True, env=environment)
    assert done.returncode == 1 and "FER2013 is not at hand: name its file in FER_DATA" in done.stderr + done.stdout


def test_make_keeps_an_environment_that_was_set_up_by_hand(tmp_path):
    """It sets up what is missing there; only what a set-up of its own has left undone is cleared."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    environment = tmp_path / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "pip").symlink_to("/bin/true")
    (environment / "pyvenv.cfg").touch()
    command = ["make", f"PYTHON={sys.executable}", ".venv/ready"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert (environment / "ready").exists() and (environment / "pyvenv.cfg").exists()


def test_make_full_trains_first_and_makes_the_site_of_the_new_records(tmp_path):
    """Snakemake looks for records when it begins: it does not see those that it makes."""
    (tmp_path / "Snakefile").write_text(
        """
from pathlib import Path
rule runs:
    input: expand("{run}.json", run=config.get("experiments", []))
rule run:
    output: "{run}.json"
    shell: "sleep 1; touch {output}"
rule site:
    input: sorted(str(path) for path in Path().glob("*.json"))
    output: "site.txt"
    shell: "echo {input} > {output}"
"""
    )
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "ready").touch()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["make", "full", "CORES=1", "CONFIG=experiments=[a,b]"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(PROJECT), "PATH": path}, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0 and (tmp_path / "site.txt").read_text() == "a.json b.json\n", done.stderr


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
    pin = r"[a-z0-9._-]+(\[.*?\])?==[\w.]+( ; .*?)?(\s+--hash=sha256:[0-9a-f]{64})+"
    assert [line for line in lines if not re.fullmatch(pin, line, re.I)] == []
    assert any(line.startswith("setuptools==") for line in lines), "which builds the package"


def test_what_is_asked_for_with_extras_is_pinned_with_them():
    """Without them pip takes ``name[extra]`` for another package than ``name``, and its newest version."""
    lines = re.findall(r"^([\w.-]+(?:\[.*?\])?)==", (PROJECT / "requirements.txt").read_text(), re.M)
    pinned = {canonicalize_name(r.name): r.extras for r in map(Requirement, lines)}
    asked = [Requirement(text) for dist in distributions() for text in dist.requires or []]
    asked = [r for r in asked if r.extras and (r.marker is None or r.marker.evaluate({"extra": ""}))]
    assert "jsonschema" in {r.name for r in asked}
    assert not [str(r) for r in asked if r.extras - pinned.get(canonicalize_name(r.name), r.extras)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--config", "seed=0"], "--config knows experiments, seeds and data, and no seed"),
        (["--config", "experiments=['a9']"], "no experiment a9; there are a1_baseline"),
        (["--config", "experiments=a9"], "no experiment a9; there are a1_baseline"),
        (["--config", "data=faces/mine.csv"], "data=faces/mine.csv: fer2013, drawn or drawn-few; of others, python -m"),
    ],
)
def test_a_misspelt_choice_is_refused(tmp_path, options, message):
    done = plan_runs(tmp_path, *options)
    assert done.returncode == 1 and message in done.stderr + done.stdout


def test_data_of_ones_own_are_not_trained_on_under_fer2013s_name(tmp_path):
    done = plan_runs(tmp_path, FER_DATA="drawn-few")
    assert done.returncode == 1 and "FER_DATA names data of your own, not FER2013" in done.stderr + done.stdout


def plan_runs(folder, *options, **environment):
    command = ["snakemake", "-n", "--snakefile", f"{PROJECT / 'Snakefile'}", "--directory", f"{folder}", *options]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)} | environment
    return subprocess.run([*command, "--", "runs"], text=True, capture_output=True, env=environment)
