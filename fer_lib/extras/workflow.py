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
    r"--keep-incomplete mode|Cleaning up SLURM log|Provided [\w ]+:|Rules claiming|SLURM run ID|"
    r"\d+ of \d+ steps|Using .*profile|\[\w{3} \w{3} |\s*$"
)
OPTIONS = ["--nolock", "--quiet", "host", "reason"]  # beside those of profiles/default/, which plain snakemake has too
RECORDS = {"runs": "runs", "search": "trials"}  # made by targets that only gather them, and are no step themselves


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
    """What of Snakemake's lines a reader needs, and a line for each step, see `Steps`."""
    steps = Steps()
    for block, line in _name_blocks(lines):
        if block == "table":
            yield from steps.plan(line)
        elif block == "log":
            yield line
        elif match := re.match(r"Job (\d+): (.*)", line):
            yield steps.begin(*match.groups())
        elif match := re.match(r"Finished jobid: (\d+)", line):
            yield from steps.finish(match[1])
        elif re.match(r"Job \d+ has been submitted", line):
            steps.remote = True
        elif line.startswith("Nothing to be done"):
            yield _tell_nothing_to_do(target)
        elif block != "rule" and not CHATTER.match(line):
            yield line


def _name_blocks(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each line with what it belongs to: the "table" of what is to do, a "rule" that is announced, a failed job's
    "log", or nothing."""
    block = ""
    for line in lines:
        if block == "log" or line.startswith("=" * 80):
            yield "log", line
            block = "" if block == "log" and line.startswith("=" * 80) else "log"
            continue
        if line.startswith("Job stats:"):
            block = "table"
        elif re.match(r"(local)?rule \w+:$", line):
            block = "rule"
        elif (block == "table" and not line.strip()) or (block == "rule" and not line.startswith("    ")):
            block = ""
        yield block, line


class Steps:
    """What Snakemake does, told as "[3/22] executing ... (0:50 gone, about 5:20 left)" when a step begins.

    A cluster is handed all steps at once: there, each is told again when it is done, and the times then."""

    def __init__(self):
        self.start, self.todo, self.begun, self.done, self.remote = time.monotonic(), {}, {}, 0, False

    def plan(self, line: str) -> Iterator[str]:
        """Take a line of the table in; the last one tells what is to do."""
        if count := re.match(r"(\w+) +(\d+)$", line):
            if count[1] == "total":
                yield f"to do: {', '.join(f'{number} × {rule}' for rule, number in self.todo.items())}\n"
            elif count[1] not in RECORDS:
                self.todo[count[1]] = int(count[2])

    def begin(self, number: str, what: str) -> str:
        """number: Snakemake's, the same when a job is tried again."""
        self.begun.setdefault(number, what)
        place = list(self.begun).index(number) + 1
        return f"[{place}/{sum(self.todo.values())}] {what}{'' if self.remote else self._tell_times()}\n"

    def finish(self, number: str) -> Iterator[str]:
        self.done += number in self.begun
        if self.remote and number in self.begun:
            yield f"{self.done} of {sum(self.todo.values())} done: {self.begun[number]}{self._tell_times()}\n"

    def _tell_times(self) -> str:
        if not self.done:
            return ""
        gone = time.monotonic() - self.start
        left = gone / self.done * (sum(self.todo.values()) - self.done)
        gone, left = (f"{int(seconds) // 60}:{int(seconds) % 60:02}" for seconds in (gone, left))
        return f" ({gone} gone, about {left} left)"


def _tell_nothing_to_do(target: str) -> str:
    what = f"the {RECORDS[target]} asked for are on record" if target in RECORDS else "all is up to date"
    return f"nothing to do: {what}\n"


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
