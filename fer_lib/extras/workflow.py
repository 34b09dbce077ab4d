"""Snakemake as the Makefile calls it: python -m fer_lib.extras.workflow TARGET ...

After a kill, at whatever moment, the same command goes on: the system lets go of this lock with the last process that
holds it, where Snakemake's own would stay. A second one waits for the first. What fails is told in Snakemake's words;
what only says that it is at work is left out.
"""

import fcntl
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

CHATTER = re.compile(
    r"Assuming unrestricted|Building DAG|Using shell|Select jobs|Execute \d|Complete log|Elapsed time|Nothing to be|"
    r"\[\w{3} \w{3} |\s*$"
)
OPTIONS = ["--nolock", "--rerun-incomplete", "--quiet", "host", "progress", "reason"]


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
            for line in _drop_chatter(process.stderr):
                print(line, end="", file=sys.stderr)
    return process.returncode


def _drop_chatter(lines: Iterable[str]) -> Iterator[str]:
    """What of Snakemake's lines a reader needs: neither these, nor the blocks that announce a job."""
    announcing = False
    for line in lines:
        announcing = bool(re.match(r"(local)?rule \w+:$", line)) or (announcing and line.startswith("    "))
        if not announcing and not CHATTER.match(line):
            yield line


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on")
