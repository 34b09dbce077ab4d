"""A Sphinx extension: what the site adds to the executed notebooks, all of it taken from them and from the records.

Before a page is read, it gets its answer, the command that runs it, and folded code; once it is written, tables that
a phone can show, its figures' alternative texts and numbers, what its citations cite, and the banner of drawn faces.
"""

import base64
import functools
import io
import json
import os
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from textwrap import indent

import jinja2
import nbformat
import numpy as np
import pandas as pd
import yaml
from bs4 import BeautifulSoup
from PIL import Image

from fer_lib import __version__, claims
from fer_lib.costs import shorten_hardware
from fer_lib.dataset import EMOTIONS
from fer_lib.evaluate import format_markdown
from fer_lib.hardware import choose_hardware
from fer_lib.plots import VERDICT_COLOURS
from fer_lib.reading.faces import draw_faces

REPORTS = Path(__file__).parent
PARTS = {
    "Data": "0[12]_*",
    "Report A": "0[3-9]_* 10_*",
    "Report B": "1[1-5]_*",
    "The dispute": "16_*",
    "Beyond both": "1[789]_* 20_*",
    "All compared": "21_*",
}
"""The parts of the report, and which notebooks each has."""

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "scipy", "matplotlib", "papermill", "sphinx", "myst-nb", "furo")
BANNER = "<strong>Drawn faces, not FER2013</strong>: these figures show that everything runs, and nothing about people."
BANNER_OF_PICTURE = "<strong>The faces in the picture are drawn</strong>: what is answered to them is about nobody."


# --- notebooks ---------------------------------------------------------------------------------


def list_names(part: str) -> list[str]:
    """The executed notebooks of a part, in order."""
    patterns = (f"{pattern}.ipynb" for pattern in PARTS[part].split())
    return [path.stem for pattern in patterns for path in sorted((REPORTS / "notebooks").glob(pattern))]


@functools.cache
def read_notebook(name: str) -> nbformat.NotebookNode:
    return nbformat.read(REPORTS / "notebooks" / f"{name}.ipynb", as_version=4)


def tell_title(name: str) -> str:
    return read_notebook(name).cells[0].source.splitlines()[0].removeprefix("# ")


def find_statements(name: str) -> list[dict]:
    """The statements that a notebook judges: of the tables that `show_claims` gave, a dict a row, by column."""
    cells = [cell for cell in read_notebook(name).cells if cell.source.startswith("show_claims(")]
    rows = []
    for text in (text for cell in cells for text in _list_markdown(cell) if text.startswith("|")):
        head, _, *lines = ([part.strip() for part in line.strip("| ").split(" | ")] for line in text.splitlines())
        rows += [dict(zip(["number", *head], line)) for line in lines]
    return rows


@functools.cache
def find_notebook(number: str) -> str:
    """The first notebook that judges a statement, under its heading Verdict."""
    names = (name for part in PARTS for name in list_names(part))
    return next(name for name in names if number in {row["number"] for row in find_statements(name)})


def find_answer(name: str) -> str:
    """What came out, as Markdown: what the cell tagged for it says, or, where it has nothing to say on this data, the
    first that does; without such a tag, the verdicts."""
    cells = read_notebook(name).cells
    for cell in (cell for cell in cells if "answer" in cell.metadata.get("tags", [])):
        texts = cell.source.split("\n\n")[1:] if cell.cell_type == "markdown" else _list_markdown(cell)
        said = (text for cell in cells for text in _list_markdown(cell) if text[0] not in "|>")
        return _set_minus(texts[0] if texts else next(said, ""))
    rows = sorted(find_statements(name), key=lambda row: claims.VERDICTS.index(row["verdict"].strip("*")))
    told = [
        f"**{row['verdict'].strip('*').capitalize()}:** {row['statement'].rstrip('.')} ({_tell_effect(row['effect'])})."
        for row in rows
    ]
    return told[0] if len(told) == 1 else "\n".join(f"- {line}" for line in told)


def is_of_drawn_faces(name: str) -> bool:
    """Whether a notebook was executed on them."""
    return "data: drawn" in _collect_printed(name)


def shows_drawn_faces(name: str) -> bool:
    """Whether a notebook's figures are of drawn faces: its data's, or those of the picture where none was given."""
    notebook = read_notebook(name)
    given = notebook.metadata.get("papermill", {}).get("parameters", {})
    return is_of_drawn_faces(name) or ("picture" in list_parameters(name) and not given.get("picture"))


def list_parameters(name: str) -> list[str]:
    """The parameters that a notebook declares."""
    cells = (cell for cell in read_notebook(name).cells if "parameters" in cell.metadata.get("tags", []))
    return [parameter for cell in cells for parameter in re.findall(r"^(\w+): ", cell.source, re.M)]


def list_figures(name: str) -> list[dict]:
    """What `plots.describe_figure` says of each figure, in order."""
    outputs = (output for cell in read_notebook(name).cells for output in cell.get("outputs", []))
    return [output.metadata.get("image/png", {}) for output in outputs if "image/png" in output.get("data", {})]


def _collect_printed(name: str) -> str:
    return "".join(output.get("text", "") for cell in read_notebook(name).cells for output in cell.get("outputs", []))


def _list_markdown(cell: nbformat.NotebookNode) -> list[str]:
    shown = (output.get("data", {}).get("text/markdown", "") for output in cell.get("outputs", []))
    return [text for text in shown if text]


def _tell_effect(effect: str) -> str:
    """ "-2.2 (-3.5 to -0.9)" as it is said in a sentence."""
    return _set_minus(effect.replace(" (", ", " if effect.startswith("×") else " points, ", 1).rstrip(")"))


def _set_minus(text: str) -> str:
    return re.sub(r"(?<!\w)-(?=\d)", "−", text)


# --- before a page is read ---------------------------------------------------------------------


def prepare_source(app, docname: str, source: list[str]) -> None:
    """Of a notebook, frame it; of a page of ours, fill in what it asks of this module."""
    if docname.startswith("notebooks/"):
        # Jupyter's anchors have capitals, Sphinx's not
        text = re.sub(r"\.ipynb#[\w-]+", lambda link: link[0].lower(), source[0])
        source[0] = frame_notebook(docname.removeprefix("notebooks/"), nbformat.reads(text, as_version=4))
    elif docname == "results":  # which is read in the repository too
        source[0] = source[0].replace("](../notebooks/", "](notebooks/")
    elif docname in ("index", "run", "statistics", "try"):
        template = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True).from_string(source[0])
        source[0] = template.render({asked.__name__: asked for asked in ASKED}, PARTS=PARTS, EMOTIONS=EMOTIONS)


FRAME = """{title}

```{{container}} answer
{answer}
```

<details class="run"><summary>Run it yourself</summary>

```sh
{command}
```

{said} [How to set up](../run.md).

{{download}}`The notebook <{name}.ipynb>` as it was executed for this page, with its outputs.

</details>
{rest}"""


def frame_notebook(name: str, notebook: nbformat.NotebookNode) -> str:
    """The notebook's JSON, with its answer and how to run it under its title, and its code folded."""
    title, rest = notebook.cells[0].source.split("\n", 1)
    command, said = tell_command(name)
    parts = dict(title=title, rest=rest, name=name, command=command, said=said, answer=find_answer(name))
    notebook.cells[0].source = FRAME.format(**parts)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-input"]
    return nbformat.writes(notebook)


def tell_command(name: str) -> tuple[str, str]:
    """The command that runs a notebook as briefly as possible, and what it does."""
    profile = yaml.safe_load((REPORTS.parent / "params" / "quick.yaml").read_text(encoding="utf-8"))
    taken = {key: value for key, value in profile.items() if key in list_parameters(name)}
    command = f".venv/bin/papermill notebooks/{name}.ipynb mine.ipynb"
    if not taken:
        return command, "It reads what comes with the project, and trains nothing."
    settings = yaml.safe_dump(taken, default_flow_style=True, width=float("inf"), sort_keys=False).strip()
    said = "Drawn faces, and as little training as possible; without `data` it takes FER2013, if it is there."
    return f"{command} -y '{settings}'", said


# --- what our own pages ask for ----------------------------------------------------------------


def list_notebooks(part: str) -> str:
    """A list in Markdown: each notebook of a part, and what came out."""
    lines = []
    for name in list_names(part):
        answer = find_answer(name) + " *(On drawn faces.)*" * is_of_drawn_faces(name)
        lines.append(f"- [{tell_title(name)}](notebooks/{name}.ipynb)  \n{indent(answer, '  ')}")
    return "\n".join(lines)


@functools.cache
def judge() -> pd.DataFrame:
    """Every statement of the two reports, with its verdict."""
    statements = [s for s in claims.read_claims()[1] if s.claim != claims.QUESTIONS]
    return claims.tabulate_statements(statements, claims.read_verdicts())


def count(verdict: str) -> int:
    return int((judge()["verdict"] == f"**{verdict}**").sum())


def show_verdicts(verdict: str) -> str:
    table = judge()[judge()["verdict"] == f"**{verdict}**"].copy()
    table[""] = [f"[{number}](notebooks/{find_notebook(number)}.ipynb#verdict)" for number in table[""]]
    return format_markdown(table[["", "statement", "verdict", "effect", "reported"]])


def quote_readme(*headings: str) -> str:
    """Sections of the README; what it links to in the repository, which is not on the site, is named alone."""
    text = (REPORTS.parent / "README.md").read_text(encoding="utf-8")
    parts = (re.search(rf"^## {heading}\n.*?(?=^## )", text, re.M | re.S)[0] for heading in headings)
    return re.sub(r"\[([^]]+)\]\((?!http)[^)]+\)", r"`\1`", "".join(parts))


def tell_bibtex() -> str:
    """How to cite the report; who wrote it and when is said in the write-up's head."""
    text = (REPORTS / "paper.md").read_text(encoding="utf-8")
    title, author, year = re.match(r"# (.+)\n\n(.+?) · version .+ (\d+)\n", text).groups()
    author = author.replace("`", "").replace("_", r"\_")
    fields = {"author": f"{{{author}}}", "title": f"{{{title}}}", "year": year, "note": f"Version {__version__}"}
    return "@misc{fer_lib" + "".join(f",\n  {name} = {{{value}}}" for name, value in fields.items()) + "\n}"


def tabulate_times() -> str:
    """A row a notebook: how long it and its longest cell took, the versions it prints, and when it was executed."""
    rows = []
    for name in (name for part in PARTS for name in list_names(part)):
        notebook = read_notebook(name)
        run = notebook.metadata.get("papermill", {})
        cells = [cell.metadata.get("papermill", {}).get("duration") or 0.0 for cell in notebook.cells]
        row = {"notebook": f"[{tell_title(name)}](notebooks/{name}.ipynb)"}
        row |= {"seconds": _tell_seconds(run.get("duration")), "longest cell": _tell_seconds(max(cells) or None)}
        rows.append(row | _tell_versions(name) | {"executed": _tell_time(run.get("start_time"))})
    return format_markdown(pd.DataFrame(rows))


def tell_total() -> str:
    runs = [read_notebook(name).metadata.get("papermill", {}) for part in PARTS for name in list_names(part)]
    return f"{sum(run.get('duration') or 0.0 for run in runs) / 60:.1f}"


def _tell_time(stamp: str | None) -> str:
    return "—" if stamp is None else stamp[:16].replace("T", " ")


def _tell_seconds(seconds: float | None) -> str:
    return "—" if seconds is None else f"{seconds:.1f}"


def _tell_versions(name: str) -> dict[str, str]:
    printed = _collect_printed(name)
    versions = re.search(r"fer_lib (\S+), Python (\S+), torch ([^\n]+)", printed)
    data = re.search(r"^(?:data:|records: of) ([\w-]+)", printed, re.M)
    found = dict(zip(("fer_lib", "Python", "torch"), versions.groups() if versions else "———"))
    return found | {"data": data[1] if data else "—"}


def tell_machine() -> str:
    return f"{shorten_hardware(choose_hardware().name)}, {os.cpu_count()} cores, {platform.system()}"


def tabulate_packages() -> str:
    return format_markdown(pd.DataFrame([{"package": n, "version": metadata.version(n)} for n in PACKAGES]))


def tell_missing() -> str:
    """Why the network cannot be tried in the browser, as `fer_lib.extras.browser` wrote it; "" if it can."""
    return (REPORTS / "browser" / "missing.txt").read_text(encoding="utf-8")


def measure_script() -> str:
    """Megabytes that a reader loads to try the network."""
    return f"{(REPORTS / 'browser' / 'network.js').stat().st_size / 1e6:.0f}"


def draw_examples() -> Iterator[tuple[str, str]]:
    """A drawn face of each class: its name, and the picture as an address that holds it."""
    for emotion, face in zip(EMOTIONS, draw_faces(np.arange(len(EMOTIONS)), np.random.default_rng(0))):
        Image.fromarray(face).save(file := io.BytesIO(), "PNG")
        yield emotion, f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


ASKED = (
    *(list_notebooks, count, show_verdicts, quote_readme, tell_bibtex),
    *(tabulate_times, tell_total, tell_machine, tabulate_packages),
    *(tell_missing, measure_script, draw_examples),
)


# --- once a page is written --------------------------------------------------------------------


def finish_page(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    """Add to a page's HTML what Markdown cannot say."""
    if "body" not in context:
        return
    if pagename == "try" and not tell_missing():
        app.add_js_file("try.js")
    soup = BeautifulSoup(context["body"], "html.parser")
    _label_verdicts(soup)
    for text in soup.find_all(string=lambda text: text.find_parent("td") and not text.find_parent("code")):
        text.replace_with(_set_minus(text).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"))
    _tell_citations(soup)
    if pagename.startswith("notebooks/"):
        name = pagename.removeprefix("notebooks/")
        for picture, figure in zip(soup.select(".cell_output img"), list_figures(name), strict=True):
            _describe_picture(soup, picture, figure)
        context["theme_announcement"] = (
            BANNER if is_of_drawn_faces(name) else BANNER_OF_PICTURE if shows_drawn_faces(name) else ""
        )
    for picture in soup.select("img[src$='.svg']"):  # the write-up's figures
        described = REPORTS / "paper" / f"{Path(picture['src']).stem}.json"
        caption = soup.new_tag("span", attrs={"class": "caption"})
        caption.string = picture["alt"]
        _describe_picture(soup, picture, json.loads(described.read_text(encoding="utf-8")))
        if pagename == "paper/index":
            (picture.find_parent(class_="hoverable") or picture).insert_after(caption)
    context["body"] = str(soup)


def _describe_picture(soup: BeautifulSoup, picture, figure: dict) -> None:
    picture["alt"] = figure.get("alt") or picture["alt"]
    title = soup.new_tag("span", attrs={"class": "figure-title", "aria-hidden": "true"})  # for a phone, see site.css
    title.string = picture["alt"]
    picture.insert_before(title)
    if figure.get("hints"):
        picture.wrap(soup.new_tag("span", attrs={"class": "hoverable", "data-hints": json.dumps(figure["hints"])}))


def _label_verdicts(soup: BeautifulSoup) -> None:
    """Name the cells of tables with a verdict after their columns, for the style; mark each verdict by its word."""
    for table in soup.select("table"):
        columns = [cell.get_text(strip=True) for cell in table.select("thead th")]
        if "verdict" not in columns:
            continue
        table["class"] = [*table.get("class", []), "verdicts"]
        table["role"] = "table"  # which a browser forgets for what is not laid out as one
        for row in table.select("tr"):
            row["role"] = "row"
            for column, cell in zip(columns, row.select("td")):
                cell["role"], cell["data-label"] = "cell", column or "number"
                if cell.get_text(strip=True) == "—":
                    cell["class"] = [*cell.get("class", []), "none"]
    for word in soup.select("td[data-label=verdict] strong, .answer strong, .answers strong"):
        verdict = word.get_text().rstrip(":").lower()
        if verdict in VERDICT_COLOURS:
            word["class"] = ["verdict", verdict.split()[0]]


def _tell_citations(soup: BeautifulSoup) -> None:
    for link in soup.select("a[href]"):
        if link["href"] in read_references() and link["href"].rsplit("/", 1)[-1] not in link.get_text():
            link["data-tip"] = read_references()[link["href"]]


@functools.cache
def read_references() -> dict[str, str]:
    """What each cited address is: of the write-up's list, and of that of what only notebooks cite."""
    return {url: text for name in ("paper.md", "references.md") for url, text in _list_references(REPORTS / name)}


def _list_references(path: Path) -> Iterator[tuple[str, str]]:
    for text, url in re.findall(r"^- (.+?) \[[^\]]*\]\((http\S+)\)$", path.read_text(encoding="utf-8"), re.M):
        yield url, text.replace("*", "")


def setup(app) -> dict:
    app.connect("source-read", prepare_source)
    app.connect("html-page-context", finish_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
