"""The main job, from a copy of the project without FER2013: notebooks executed, site built and opened in a browser."""

import collections
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pandas as pd
import pytest

from fer_lib.record import WEIGHTS, read_published_runs
from fer_lib.report import publish
from tests.conftest import PROJECT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What `make report` builds on the drawn faces; the copy's own fer_lib is imported."""
    copy = tmp_path_factory.mktemp("copy") / "project"
    built = shutil.ignore_patterns("__pycache__", "wandb", "site", "*.partial")
    for name in ("fer_lib", "notebooks", "params", "sweeps"):
        shutil.copytree(PROJECT / name, copy / name, ignore=built)
    (copy / "reports").mkdir()
    for name in (
        "Snakefile",
        "README.md",
        "reports/conf.py",
        "reports/index.md",
        "reports/site.css",
        "reports/bench.json",
        "reports/claims.yaml",
        "reports/verdicts.csv",
        "reports/gradients.csv",
        "reports/method.json",
        "reports/published.csv",
        "reports/tries.csv",
        "reports/confusions.json",
        "reports/facts.json",
        "reports/paper.md",
        "reports/paper.typ",
        "reports/card.md",
        "reports/summary.md",
    ):
        shutil.copy(PROJECT / name, copy / name)
    for name in ("runs", "sweeps"):
        shutil.copytree(PROJECT / "reports" / name, copy / "reports" / name, ignore=built)
    environment = {k: v for k, v in os.environ.items() if k not in ("FER_DATA", "FER_RUNS", "MPLBACKEND")}
    done = subprocess.run(
        ["snakemake", "--quiet", "all", "--cores", "2", "--", "site"],
        cwd=copy, text=True, capture_output=True, env=environment | {"PYTHONPATH": str(copy)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return copy / "reports" / "site"


def test_every_notebook_is_a_page_that_says_it_is_not_fer2013(site):
    pages = sorted(path.stem for path in (site / "notebooks").glob("*.html"))
    assert pages == sorted(path.stem for path in (PROJECT / "notebooks").glob("*.ipynb"))
    for page in [site / "index.html", *(site / "notebooks").glob("*.html")]:
        assert "drawn faces, not FER2013" in page.read_text()


def test_once_fer2013_is_there_the_report_is_made_anew(site):
    """The plan alone: what the drawn faces gave is not up to date any more; what reads records alone is."""
    environment = {k: v for k, v in os.environ.items() if k != "FER_RUNS"} | {"FER_DATA": "a file"}
    command = ["snakemake", "--cores", "2", "--rerun-triggers", "mtime", "params", "-n", "site"]
    done = subprocess.run(command, cwd=site.parents[1], text=True, capture_output=True, env=environment)
    planned = re.search(r"^notebook +(\d+)$", done.stdout, re.M)
    on_data = [path for path in (PROJECT / "notebooks").glob("*.ipynb") if "data: str" in path.read_text()]
    assert planned and int(planned[1]) == len(on_data), done.stdout + done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the site")
def test_the_site_in_a_browser_has_no_broken_link_no_missing_picture_and_asks_no_other_host(site):
    from playwright.sync_api import sync_playwright

    handler = functools.partial(QuietHandler, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}/"
    asked, failed, seen, waiting = set(), [], set(), [home + "index.html"]
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 390, "height": 800})  # a phone's
        page.on("request", lambda request: asked.add(request.url))
        page.on("response", lambda response: response.status < 400 or failed.append(response.url))
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        while waiting:
            url = waiting.pop()
            seen.add(url)
            page.goto(url, wait_until="networkidle")
            pictures = page.eval_on_selector_all("img", "all => all.map(i => [i.src, i.complete && i.naturalWidth])")
            failed += [source for source, width in pictures if not width]
            anchors = page.eval_on_selector_all("a[href^='#']", "all => all.map(a => a.getAttribute('href').slice(1))")
            failed += [
                f"{url}#{a}" for a in anchors if a and not page.evaluate("id => !!document.getElementById(id)", a)
            ]
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= 391, f"{url} is {width} pixels wide on a phone of 390"
            links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href.split('#')[0])")
            pages = {link for link in links if link.startswith(home) and link.endswith((".html", "/"))}
            waiting += sorted(pages - seen - set(waiting))
        browser.close()
    server.shutdown()
    assert len(seen) > len(list((PROJECT / "notebooks").glob("*.ipynb")))
    assert not failed
    assert all(url.startswith((home, "data:", "blob:")) for url in asked)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


# --- README ------------------------------------------------------------------------------------


@pytest.fixture
def published(monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    return read_published_runs()


def test_the_readmes_tables_are_made_from_the_records(published):
    text = (PROJECT / "README.md").read_text()
    assert publish.update_readme(text) == text, "run `make results`"
    runs = collections.Counter(run.experiment.name for run in published)
    for experiment, count in runs.items():
        assert (f"`{experiment}`" in text) == (count >= 3)


def test_results_csv_holds_every_published_run(published):
    table = pd.read_csv(PROJECT / "reports" / "results.csv")
    expected = [(run.experiment.name, run.seed, run.results["test_accuracy"]) for run in published]
    assert list(zip(table["experiment"], table["seed"], table["test_accuracy"])) == expected


def test_the_readme_lists_every_notebook_and_its_files_exist():
    text = (PROJECT / "README.md").read_text()
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in text
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert link.startswith("http") or (PROJECT / link).exists(), link


def test_the_readmes_papermill_command_names_parameters_that_exist():
    (command,) = re.findall(r"papermill (notebooks/\S+) (.*)", (PROJECT / "README.md").read_text())
    notebook = json.loads((PROJECT / command[0]).read_text())
    (cell,) = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    for name in re.findall(r"-p (\w+)|\"(\w+):", command[1]):
        assert f"{''.join(name)}: " in "".join(cell["source"])


def test_the_repository_is_small_and_holds_no_data():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    files = [PROJECT / name for name in done.stdout.split("\0") if name]
    assert sum(path.stat().st_size for path in files if path.is_file()) < 45e6
    assert not [path for path in files if Path(path).suffix in (".zip", ".gz", ".npy")]
    weights = [path for path in files if path.suffix == ".safetensors" and path.is_file()]
    assert {path.name for path in weights} <= {WEIGHTS}, "a run keeps them beside its record"
    assert sum(path.stat().st_size for path in weights) < 12e6, "those that notebooks look into, no others"
