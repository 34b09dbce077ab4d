"""The package's plan: what README.md says of it, what is imported, and how CONTRIBUTING.md adds to it."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from fer_lib import __version__
from fer_lib.experiments import EXPERIMENTS
from tests.conftest import PROJECT

PLAN = re.search(r"<!-- plan.*?-->(.*?)<!-- end of plan -->", (PROJECT / "README.md").read_text(), re.S)[1]
CONTRIBUTING = (PROJECT / "CONTRIBUTING.md").read_text()


def list_modules():
    """Every module but the packages' own, as "fer_lib.plots.style"."""
    paths = [path.relative_to(PROJECT).with_suffix("") for path in (PROJECT / "fer_lib").rglob("*.py")]
    return {".".join(path.parts) for path in paths if path.name != "__init__"}


def list_imports(module):
    """The modules of the package that one imports, wherever in its text; a package's names count as its modules'."""
    modules = list_modules()
    tree = ast.parse((PROJECT / (module.replace(".", "/") + ".py")).read_text())
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)):
        for name in node.names:
            whole = f"{node.module}.{name.name}"
            if whole in modules or node.module in modules:
                yield whole if whole in modules else node.module
            elif (node.module or "").startswith("fer_lib."):
                yield from (m for m in modules if m.startswith(f"{node.module}."))


def test_the_readmes_plan_is_every_module_in_the_order_in_which_they_may_import():
    rooms = re.findall(r"^\| `(fer_lib[\w/]*)/` \| (.*?) \|", PLAN, re.M)
    order = [f"{room.replace('/', '.')}.{name}" for room, names in rooms for name in re.findall(r"`(\w+)`", names)]
    assert sorted(order) == sorted(list_modules())
    for module in order:
        for imported in set(list_imports(module)) - {module}:
            assert order.index(imported) < order.index(module), f"{module} imports {imported}, which comes after it"


def test_no_file_of_the_package_is_long():
    for module in list_modules():
        lines = (PROJECT / (module.replace(".", "/") + ".py")).read_text().count("\n")
        assert lines <= 330, f"{module} has {lines} lines"


def test_the_version_is_said_once_more_where_it_must_be():
    assert f"\nversion: {__version__}\n" in (PROJECT / "CITATION.cff").read_text()
    assert f'\nversion = "{__version__}"\n' in (PROJECT / "pyproject.toml").read_text()
    assert f"\n## {__version__}\n" in (PROJECT / "CHANGELOG.md").read_text()


def read_parts(folder):
    """`PARTS` of reports/pages.py in a folder."""
    text = (folder / "reports" / "pages.py").read_text()
    return ast.literal_eval(re.search(r"^PARTS = (\{.*?^\})", text, re.S | re.M)[1])


def find_unplaced(folder):
    """The notebooks that are in no part of the report, or in two."""
    notebooks = folder / "notebooks"
    placed = [
        path for part in read_parts(folder).values() for one in part.split() for path in notebooks.glob(one + ".ipynb")
    ]
    return [path.stem for path in sorted(notebooks.glob("*.ipynb")) if placed.count(path) != 1]


def test_every_notebook_has_one_place_in_the_report():
    unplaced = find_unplaced(PROJECT)
    assert not unplaced, f"in no part of the report, or in two: {unplaced}; see PARTS in reports/pages.py"


def test_a_notebook_compares_its_experiment_with_what_the_experiment_names():
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        text = "\n".join(cell.source for cell in nbformat.read(path, 4).cells)
        named = dict(re.findall(r'^(experiment|baseline): str = "(\w+)"', text, re.M))
        if len(named) == 2 and EXPERIMENTS[named["experiment"]].report in "AB":
            assert named["baseline"] == EXPERIMENTS[named["experiment"]].against, path.name


@pytest.mark.slow
def test_an_experiment_is_added_by_the_page(tmp_path):
    """On a scratch copy: the page's lines at the page's place, its training, its notebook and its part."""
    ignore = shutil.ignore_patterns("runs", "site", "wandb", "__pycache__", "paper")
    for name in ("fer_lib", "notebooks", "params", "reports", "sweeps"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=ignore)
    (block,) = re.findall(r"```python\n(.*?)```", CONTRIBUTING, re.S)
    lines = "".join(line.removeprefix("   ") for line in block.splitlines(keepends=True)).strip()
    path = tmp_path / "fer_lib" / "experiments.py"
    before, after = path.read_text().split("\nMORE = ")
    path.write_text(f"{before}\n{lines}\nMORE = {after}")
    name = re.search(r'vary\(\w+, "(\w+)"', lines)[1]
    (notebook,) = re.findall(rf"`(\d+_{name}.ipynb)`", CONTRIBUTING)
    text = (tmp_path / "notebooks" / "07_a5_deeper_head.ipynb").read_text()
    text = text.replace('experiment: str = \\"a5_deeper_head\\"', f'experiment: str = \\"{name}\\"')
    text = text.replace('str = \\"a4_wider\\"', 'str = \\"a5_deeper_head\\"')
    (tmp_path / "notebooks" / notebook).write_text(
        re.sub(r'^.*"batch_size: int = 64.*\n|, batch_size=batch_size', "", text, flags=re.M)
    )
    assert find_unplaced(tmp_path) == [notebook.removesuffix(".ipynb")], "a test tells that it has no place"
    pages = tmp_path / "reports" / "pages.py"
    pages.write_text(pages.read_text().replace('"Report A": "', f'"Report A": "{notebook[:2]}_* '))
    assert find_unplaced(tmp_path) == []

    def run(*arguments):
        done = subprocess.run([sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    told = run("-m", "fer_lib.train", name, "--data", "drawn-few", "--epochs", "1", "--wandb", "disabled")
    assert told.startswith(f"{name} drawn-few seed 0")
    listed = run("-c", "from fer_lib.experiments import EXPERIMENTS as E; print(*E)").split()
    assert listed.index(name) == listed.index("a8b_harder_upsampling") + 1 and f"c{name}" in listed
    run("-m", "papermill", f"notebooks/{notebook}", "out.ipynb", "-f", "params/quick.yaml", "--no-progress-bar")
    assert f"{EXPERIMENTS['a5_deeper_head'].step} " in (tmp_path / "out.ipynb").read_text()
    records = [json.loads(path.read_text()) for path in (tmp_path / os.environ["FER_RUNS"]).glob("*/*/run.json")]
    sizes = {record["experiment"]: record["config"]["batch_size"] for record in records}
    assert (sizes[name], sizes["a5_deeper_head"]) == (256, 64)
