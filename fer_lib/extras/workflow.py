"""Snakemake as the Makefile calls it: python -m fer_lib.extras.workflow TARGET ...

After a kill, at whatever moment, the same command goes on: the system lets go of this lock with the last process that
holds it, where Snakemake's own would stay. A second one waits for the first. What fails is told in Snakemake's words;
of what is done there is a line for each step, with the time gone and about the time left.
"""

import fcntl
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

CHATTER = re.compile(
    r"Assuming unrestricted|Building DAG|Using shell|Select jobs|Execute \d|Complete log|Elapsed time|"
    r"Provided \w+:|Rules claiming|Finished jobid|SLURM run ID|Job \d+ has been submitted|\[\w{3} \w{3} |\s*$"
)
OPTIONS = ["--nolock", "--rerun-incomplete", "--quiet", "host", "reason"]
GATHERING = {"full", "runs", "search"}  # targets that are no step themselves
RECORDS = {
    "full": ("runs", "reports/runs/*/fer2013-seed*/run.json"),
    "search": ("trials", "reports/sweeps/*/fer2013/*.json"),
}


def main(arguments: list[str]) -> int:
    """Run Snakemake in the current folder; return its exit status."""
    path = Path(".snakemake") / "at-work"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another make is at work here; waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        command = ["snakemake", *OPTIONS, *arguments]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=[lock.fileno()]) as process:
            for line in tell_steps(process.stderr, arguments[-1]):
                print(line, end="", file=sys.stderr)
    return process.returncode


def tell_steps(lines: Iterable[str], target: str) -> Iterator[str]:
    """What of Snakemake's lines a reader needs, and each step as "[3/22] executing ... (0:50 gone, about 5:20 left)"."""
    start, jobs, todo, done = time.monotonic(), [], {}, 0
    block = ""  # what the lines belong to: the table of what is to do, the announcement of a job, or a job's own log
    for line in lines:
        if block == "log" or line.startswith("=" * 80):
            block = "" if block == "log" and line.startswith("=" * 80) else "log"
            yield line
        elif line.startswith("Job stats:"):
            block = "table"
        elif block == "table" and (count := re.match(r"(\w+) +(\d+)$", line)):
            if count[1] == "total":
                block = ""
                yield f"to do: {', '.join(f'{number} × {rule}' for rule, number in todo.items())}\n"
            elif count[1] not in GATHERING:
                todo[count[1]] = int(count[2])
        elif re.match(r"(local)?rule \w+:$", line) or (block == "rule" and line.startswith("    ")):
            block = "rule"
        elif announced := re.match(r"Job (\d+): (.*)", line):
            number, what = announced.groups()
            jobs += [number] * (number not in jobs)
            total = sum(todo.values())
            times = _tell_times(time.monotonic() - start, done, total)
            yield f"[{jobs.index(number) + 1}/{total}] {what}{times}\n"
        elif finished := re.match(r"(\d+) of \d+ steps \(.*\) done", line):
            done = int(finished[1])
        elif line.startswith("Nothing to be done"):
            yield _tell_nothing_to_do(target)
        elif block != "table" and not CHATTER.match(line):
            block = ""
            yield line


def _tell_times(gone: float, done: int, total: int) -> str:
    """" (0:50 gone, about 5:20 left)" once a step is done; gone: seconds."""
    if not done:
        return ""
    gone, left = (f"{int(seconds) // 60}:{int(seconds) % 60:02}" for seconds in (gone, gone / done * (total - done)))
    return f" ({gone} gone, about {left} left)"


def _tell_nothing_to_do(target: str) -> str:
    if target not in RECORDS:
        return "nothing to do: all is up to date\n"
    what, pattern = RECORDS[target]
    return f"nothing to do: {len(list(Path().glob(pattern)))} {what} are on record\n"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
