"""The main job, from a copy of the project without FER2013: notebooks executed, site built and opened in a browser."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from fer_lib import claims
from fer_lib.record import WEIGHTS, digest_sources, list_sources, read_published_runs
from fer_lib.report import publish
from tests.conftest import PROJECT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What `make report` builds on the drawn faces; the copy's own fer_lib is imported."""
    copy = tmp_path_factory.mktemp("copy") / "project"
    built = shutil.ignore_patterns("__pycache__", "wandb", "site", "*.partial")
    for name in ("fer_lib", "notebooks", "params", "profiles", "sweeps"):
        shutil.copytree(PROJECT / name, copy / name, ignore=built)
    (copy / "reports").mkdir()
    for name in (
        "Snakefile",
        "README.md",
        "reports/conf.py",
        "reports/index.md",
        "reports/pages.py",
        "reports/references.md",
        "reports/results.md",
        "reports/run.md",
        "reports/site.css",
        "reports/site.js",
        "reports/statistics.md",
        "reports/try.js",
        "reports/try.md",
        "reports/bench.json",
        "reports/claims.yaml",
        "reports/verdicts.csv",
        "reports/gradients.csv",
        "reports/shifts.csv",
        "reports/method.json",
        "reports/published.csv",
        "reports/results.csv",
        "reports/made_from.txt",
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
    npm = {"npm_config_registry": "http://127.0.0.1:9", "npm_config_cache": str(copy.parent / "npm")}  # nobody answers
    done = subprocess.run(
        ["snakemake", "--quiet", "all", "--cores", "2", "--", "site"],
        cwd=copy, text=True, capture_output=True, env=environment | npm | {"PYTHONPATH": str(copy)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return copy / "reports" / "site"


@pytest.mark.slow
def test_every_notebook_is_a_page_and_those_of_drawn_faces_say_so(site):
    pages = {path.stem: path.read_text() for path in (site / "notebooks").glob("*.html")}
    notebooks = {path.stem: path.read_text() for path in (PROJECT / "notebooks").glob("*.ipynb")}
    assert sorted(pages) == sorted(notebooks)
    for told, parameter in (
        ("Drawn faces, not FER2013", "data: str"),
        ("The faces in the picture are", "picture: str"),
    ):
        drawn = {name for name, text in notebooks.items() if parameter in text}
        assert {name for name, text in pages.items() if told in text} == drawn
    for page in site.glob("*.html"):  # their figures and tables are of the records
        assert "Drawn faces, not FER2013" not in page.read_text()


@pytest.mark.slow
def test_every_notebook_begins_with_its_answer_and_how_to_run_it(site):
    for path in sorted((site / "notebooks").glob("*.html")):
        page = BeautifulSoup(path.read_text(), "html.parser")
        assert len(page.select_one(".answer").get_text().split()) >= 3, path
        assert page.select_one("details.run pre").get_text().startswith(f".venv/bin/papermill notebooks/{path.stem}.")
        download = page.select_one("details.run a.download")["href"]
        assert json.loads((path.parent / download).read_text())["cells"]
        assert all(code.find_parent("details") for code in page.select(".cell_input"))
    table = BeautifulSoup((site / "statistics.html").read_text(), "html.parser").select_one("table")
    seconds = [float(row.select("td")[1].get_text()) for row in table.select("tbody tr")]
    assert len(seconds) == len(list((site / "notebooks").glob("*.html"))) and min(seconds) > 0


@pytest.mark.slow
def test_a_verdict_leads_to_the_notebook_that_gives_it_and_the_site_says_how_to_run_it(site):
    index = BeautifulSoup((site / "index.html").read_text(), "html.parser")
    links = {link.get_text(): link["href"] for link in index.select("td[data-label=number] a")}
    numbers = [s.number for s in claims.read_claims()[1] if s.claim != claims.QUESTIONS]
    assert sorted(links) == sorted(numbers)
    for number, address in links.items():
        name, anchor = address.split("#")
        page = BeautifulSoup((site / name).read_text(), "html.parser")
        assert any(cell.get_text() == number for cell in page.find(id=anchor).select("td[data-label=number]")), number
    run = BeautifulSoup((site / "run.html").read_text(), "html.parser").select_one("article").get_text()
    assert "make report" in run and "papermill notebooks/03_a1_baseline.ipynb" in run and "README" in run


@pytest.mark.slow
def test_where_the_runtime_could_not_be_had_the_page_to_try_the_network_says_so(site):
    page = BeautifulSoup((site / "try.html").read_text(), "html.parser")
    (note,) = page.select(".admonition.warning")
    why = (site.parent / "browser" / "missing.txt").read_text()
    assert why.startswith("npm") and why in note.get_text() and "Install Node.js" in note.get_text()
    assert "make report" in note.get_text()
    assert not page.select("#try, script[src*='try.js']") and not (site / "_static" / "network.js").exists()


@pytest.mark.slow
def test_every_link_within_the_site_leads_somewhere(site):
    pages = {path: BeautifulSoup(path.read_text(), "html.parser") for path in site.rglob("*.html")}
    followed = 0
    for path, page in pages.items():
        for link in page.select("a[href], img[src], link[href], script[src]"):
            address = urlsplit(link.get("href") or link["src"])
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            assert target.exists(), f"{link} in {path.name}"
            if address.fragment and target in pages:
                assert pages[target].find(id=unquote(address.fragment)), f"{link} in {path.name}"
                followed += 1
    assert followed > 100


@pytest.mark.slow
def test_every_citation_says_what_it_cites(site):
    for path in site.rglob("*.html"):
        for link in BeautifulSoup(path.read_text(), "html.parser").select("a[href*='doi.org/'], a[href*='arxiv.org/']"):
            is_listed = link["href"].rsplit("/", 1)[-1] in link.get_text()  # the reference itself, with its number
            assert is_listed or link.get("data-tip"), f"{link} in {path.name}: add it to reports/references.md"


@pytest.mark.slow
def test_once_fer2013_is_there_the_report_is_made_anew(site):
    """The plan alone: what the drawn faces gave is not up to date any more; what reads records alone is."""
    environment = {k: v for k, v in os.environ.items() if k != "FER_RUNS"} | {"FER_DATA": "a file"}
    command = ["snakemake", "--cores", "2", "-n", "site"]
    done = subprocess.run(command, cwd=site.parents[1], text=True, capture_output=True, env=environment)
    planned = re.search(r"^notebook +(\d+)$", done.stdout, re.M)
    on_data = [path for path in (PROJECT / "notebooks").glob("*.ipynb") if "data: str" in path.read_text()]
    assert planned and int(planned[1]) == len(on_data), done.stdout + done.stderr


@pytest.mark.slow
def test_tables_are_made_anew_for_what_their_sources_say_and_not_for_their_dates(site):
    """As in a clone, where a table can be dated before the records that it is of."""
    copy = site.parents[1]
    claims, results = copy / "reports" / "claims.yaml", copy / "reports" / "results.csv"
    before = claims.read_text()

    def plan():
        environment = {k: v for k, v in os.environ.items() if k not in ("FER_DATA", "FER_RUNS")}
        command = ["snakemake", "--cores", "2", "-n", "reports/results.csv"]
        return subprocess.run(command, cwd=copy, text=True, capture_output=True, env=environment).stdout

    assert any(path.stat().st_mtime > results.stat().st_mtime for path in copy.glob("reports/runs/*/*/run.json"))
    assert "Nothing to be done" in plan()
    claims.write_text(before + "# another sentence\n")
    assert re.search(r"^results +1$", plan(), re.M)
    claims.write_text(before)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium to open the site")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


PICTURES = "all => all.map(i => [i.src, i.alt, i.complete && i.naturalWidth])"
VERDICTS = """all => all.flatMap(table => {
    const column = [...table.querySelectorAll("thead th")].findIndex(cell => cell.textContent.trim() == "verdict");
    const rows = column < 0 ? [] : [...table.querySelectorAll("tbody tr")];
    const boxes = rows.map(row => row.querySelectorAll("td")[column].getBoundingClientRect());
    return boxes.map(box => [box.left, box.right]);
  })"""
CUT = """all => all.filter(cell => {
    const box = cell.getBoundingClientRect(), page = document.querySelector("article").getBoundingClientRect();
    const outside = box.left < page.left - 1 || box.right > page.right + 1;
    return box.width && (outside || cell.scrollWidth > cell.clientWidth + 1);
  }).map(cell => cell.textContent)"""


@pytest.mark.slow
def test_the_site_on_a_phone_from_a_folder_without_a_network(site, browser):
    """Nothing broken, nothing asked for elsewhere, no page moves sideways, figures are told, verdicts are seen."""
    home, asked, failed, seen, verdicts = f"{site.as_uri()}/", set(), [], set(), 0
    waiting = [f"{home}index.html"]
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.on("request", lambda request: asked.add(request.url))
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("pageerror", lambda error: failed.append(str(error)))
    while waiting:
        url = waiting.pop()
        seen.add(url)
        page.goto(url, wait_until="networkidle")
        for source, told, width in page.eval_on_selector_all("img", PICTURES):
            failed += [source] * (not width)
            assert len(told.split()) >= 4 and not told.endswith((".png", ".svg")), f"{url}: {source} has no text"
        titles = page.eval_on_selector_all(".figure-title", "all => all.map(title => title.offsetWidth)")
        assert all(0 < width <= 390 for width in titles), f"{url}: a figure's title is not on the screen"
        for left, right in page.eval_on_selector_all("table", VERDICTS):
            assert 0 <= left and right <= 390, f"{url}: a verdict is not on the screen"
            verdicts += 1
        anchors = page.eval_on_selector_all("a[href^='#']", "all => all.map(a => a.getAttribute('href').slice(1))")
        failed += [f"{url}#{a}" for a in anchors if a and not page.evaluate("id => !!document.getElementById(id)", a)]
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 391, f"{url} is {width} pixels wide on a phone of 390"
        links = page.eval_on_selector_all("a[href]", "all => all.map(a => a.href.split('#')[0])")
        own = {link for link in links if link.startswith(home)}
        failed += [link for link in own if not (site / link.removeprefix(home)).is_file()]
        waiting += sorted({link for link in own if link.endswith(".html")} - seen - set(waiting))
    page.close()
    assert len(seen) > len(list((PROJECT / "notebooks").glob("*.ipynb")))
    assert verdicts > 2 * 34
    assert not failed
    assert all(url.startswith((home, "data:", "blob:")) for url in asked)


@pytest.mark.slow
def test_on_a_desk_no_statement_is_cut_and_a_figures_marks_tell_their_numbers(site, browser):
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.goto(f"{site.as_uri()}/notebooks/21_final_comparison.html")
    assert page.locator("table.verdicts td").count() > 300
    assert page.eval_on_selector_all("table.verdicts td", CUT) == []
    page.goto(f"{site.as_uri()}/index.html")
    assert page.eval_on_selector_all("table.verdicts td", CUT) == []
    figure = page.locator("[data-hints]")
    x, y, text = json.loads(figure.get_attribute("data-hints"))[0]
    box = figure.bounding_box()
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    assert text.startswith("A1 Baseline: ") and page.locator("#tip").inner_text() == text
    hints = [text for _, _, text in json.loads(figure.get_attribute("data-hints"))]
    figure.focus()
    told = [figure.press(key) or page.locator("#tip").inner_text() for key in ("ArrowRight", "ArrowRight", "ArrowLeft")]
    assert told == [hints[0], hints[1], hints[0]]
    page.goto(f"{site.as_uri()}/search.html?q=dropout")
    page.wait_for_selector("#search-results li a")
    page.close()


# --- README ------------------------------------------------------------------------------------


@pytest.fixture
def published(monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    return read_published_runs()


def test_the_readmes_summary_and_the_tables_are_made_from_the_records(published):
    text = (PROJECT / "README.md").read_text()
    assert publish.fill_readme(text) == text, "run `make results`"
    text = (PROJECT / "reports" / "results.md").read_text()
    assert publish.fill_results(text) == text, "run `make results`"
    for experiment in {run.experiment.name for run in published}:
        assert f"`{experiment}`" in text


def test_nothing_is_published_of_other_data_or_from_other_records(monkeypatch, small):
    before = (PROJECT / "reports" / "results.csv").read_bytes()
    monkeypatch.setattr(publish, "find_data", lambda: "a file")
    monkeypatch.setattr(publish, "load_data", lambda: small)
    with pytest.raises(SystemExit, match="what is published is of FER2013, and FER_DATA names small"):
        publish.main()
    monkeypatch.setattr(publish, "find_data", lambda: None)
    with pytest.raises(SystemExit, match="made from reports/runs, and FER_RUNS names another folder"):
        publish.main()
    assert (PROJECT / "reports" / "results.csv").read_bytes() == before


def test_results_csv_holds_every_published_run(published):
    table = pd.read_csv(PROJECT / "reports" / "results.csv")
    expected = [(run.experiment.name, run.seed, run.results["test_accuracy"]) for run in published]
    assert list(zip(table["experiment"], table["seed"], table["test_accuracy"])) == expected


def test_the_tables_are_made_from_the_records_and_statements_that_are_there():
    trials = (PROJECT / "reports" / "sweeps").glob("*/fer2013/*.json")
    assert set(trials) < set(list_sources(PROJECT / "reports"))
    told = (PROJECT / "reports" / "made_from.txt").read_text().strip()
    assert told == digest_sources(PROJECT / "reports"), "run `make results`"


def test_the_readme_lists_every_notebook_and_its_files_exist():
    text = (PROJECT / "README.md").read_text()
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        assert f"(notebooks/{path.name})" in text, f"README.md's table does not list {path.name}"
    assert len(text.encode()) <= 8192, "README.md has over 8 kB: shorten something"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "INSTALL.md", "CHANGELOG.md", "reports/results.md"])
def test_what_pages_link_to_exists(page):
    for link in re.findall(r"\]\(([^)]+)\)", (PROJECT / page).read_text()):
        path = link.split("#")[0]
        assert link.startswith("http") or ((PROJECT / page).parent / path).exists(), link


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
