"""The notebooks: what is published in them, papermill with other parameters, nbval in both profiles."""

import ast
import json
import os
import re
import subprocess
import sys

import nbformat
import papermill
import pytest
import yaml
from PIL import Image

from fer_lib import notebook as fer_notebook
from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras.photo import draw_picture
from fer_lib.notebook import check_parameters
from tests.conftest import PROJECT, REAL

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
PROFILE = yaml.safe_load((PROJECT / "params" / "quick.yaml").read_text())


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, 4)


def list_outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def test_what_is_published_is_clean(notebook, path):
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata and "papermill" not in notebook.metadata
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1)), "run it from top to bottom"
    for output in list_outputs(notebook):
        assert output.output_type != "error" and output.get("name") != "stderr"
    text = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
    assert not re.search(r"[\"' ](/home|/root|/tmp|/Users|/work|[A-Z]:\\\\)", text), "an absolute path"
    assert "Warning" not in text


def test_parameters_are_one_cell_of_typed_and_commented_literals(notebook):
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert not any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells)
    for line, node in zip(cell.source.splitlines(), ast.parse(cell.source).body, strict=True):
        assert isinstance(node, ast.AnnAssign) and "  # " in line, line
        ast.literal_eval(node.value)


def test_papermill_lists_every_parameter(notebook, path):
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert list(papermill.inspect_notebook(path)) == [node.target.id for node in ast.parse(cell.source).body]


def test_published_on_fer2013_without_a_single_face(notebook):
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    assert "show_faces: bool = True" not in cell.source
    printed = "".join(output.get("text", "") for output in list_outputs(notebook))
    told = "data: fer2013 (28,709 train, 3,589 validation, 3,589 test; fingerprint 6abd39e37481cc88)"
    assert ("data: str" in cell.source and told in printed) or "records: of fer2013" in printed


def test_code_cells_are_short(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= 20, cell.source
            assert not re.search(r"^(def|class) ", cell.source, re.M), "machinery belongs in fer_lib"


def test_defaults_are_those_of_the_published_run(path):
    parameters = papermill.inspect_notebook(path)
    if "experiment" not in parameters:
        return
    values = {name: ast.literal_eval(parameter["default"]) for name, parameter in parameters.items()}
    named = {name: EXPERIMENTS[value] for name, value in values.items() if value in list(EXPERIMENTS)}
    chosen = {name for name, value in values.items() if isinstance(value, str)} - {"data", "picture", "wandb_mode"}
    assert "experiment" in chosen == set(named)
    for name, experiment in named.items():
        for field in ("epochs", "patience", "learning_rate", "batch_size"):
            # 0 stands for each experiment's own
            own = getattr(experiment, field)
            told = f"{field}: {name} has {own}; take it out of the parameters and of `settings`"
            assert values.get(field, 0) in (0, own), told


# --- parameters ------------------------------------------------------------------------------

CELL = "epochs: int = 30  # at most\nseeds: list[int] = [0]\nrate: float = 1e-3\nlimit: int | None = None"


@pytest.mark.parametrize("given", ["epochs = 3", "seeds = [1, 2]", "rate = 1", "limit = 4", "limit = None", ""])
def test_known_parameters_pass(given):
    check_parameters(["", CELL, f"# Parameters\n{given}\n", "epochs = 'later cells are free'"])


def test_the_profile_gives_parameters_that_notebooks_have_in_their_types():
    cells = {
        cell.source
        for path in NOTEBOOKS
        for cell in nbformat.read(path, 4).cells
        if "parameters" in cell.metadata.get("tags", [])
    }
    known = {name for cell in cells for name in re.findall(r"^(\w+): ", cell, re.M)}
    assert set(PROFILE) <= known
    for cell in cells:
        given = [f"{name} = {value!r}" for name, value in PROFILE.items() if f"{name}: " in cell]
        check_parameters([cell, "\n".join(["# Parameters", *given])])


def test_what_is_given_beside_a_whole_profile_may_change_some_of_it():
    given = "\n".join(f"{name} = {value!r}" for name, value in (PROFILE | {"seeds": [3, 4]}).items())
    check_parameters(["", CELL, f"# Parameters\n{given}\n"])


def test_without_papermill_there_is_nothing_to_check():
    check_parameters(["", CELL, "%matplotlib inline"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("epoch = 3", "no parameter 'epoch' here; there are epochs, seeds, rate, limit"),
        ('epochs = "three"', "parameter epochs: 'three' is no int"),
        ("epochs = True", "parameter epochs: True is no int"),
        ('seeds = "[0, 1]"', "is no list.int.; give lists with papermill's -y"),
        ("seeds = [0.5]", "parameter seeds"),
    ],
)
def test_unknown_parameters_and_wrong_types_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        check_parameters(["", CELL, f"# Parameters\n{given}\n"])


def test_a_notebook_shows_verdict_effect_and_interval_and_says_of_what_runs(monkeypatch):
    shown = []
    monkeypatch.setattr(fer_notebook, "say", shown.append)
    fer_notebook.show_claims(["", CELL], "A-C2", "B-C4.6")
    told = "\n".join(shown)
    assert re.search(r"\| A-C2.1 \| .* \| \*\*\w+\*\* \| .* \| −\d.\d \(−\d.\d to [+−]\d.\d\) \|", told)
    assert "B-C4.6" in told and "B-C4.5" not in told and "not of this one" not in told
    fer_notebook.show_claims(["", CELL, "# Parameters\nepochs = 3\n"], "A-C2")
    assert "The verdicts are those of the published runs, not of this one." in shown


# --- execution -------------------------------------------------------------------------------


def get_environment(**changes):
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    return environment | {name: str(value) for name, value in changes.items()}


def run_kernel(command, folder, **changes):
    """Run a command that starts a kernel; again, if it lost the port it was given to a kernel that started beside it.

    Jupyter lets go of the ports it chose until its kernel, seconds later, takes them; the Snakefile retries as well.
    """
    for _ in range(3):
        done = subprocess.run(command, env=get_environment(**changes), capture_output=True, text=True, cwd=folder)
        if "Kernel died before replying" not in done.stdout + done.stderr:
            break
    return done


def run_papermill(notebook, target, *arguments, **changes):
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(target), *arguments]
    return run_kernel(command, target.parent, **changes)


@pytest.mark.slow
def test_papermill_reexecutes_an_iteration_with_other_parameters(tmp_path):
    notebook, target = PROJECT / "notebooks" / "03_a1_baseline.ipynb", tmp_path / "out.ipynb"
    done = run_papermill(
        notebook, target, "-r", "data", "drawn-few", "-p", "epochs", "2", "-y", "{learning_rate: 0.003, seeds: [5]}"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    records = [json.loads(path.read_text()) for path in (tmp_path / os.environ["FER_RUNS"]).glob("*/*/run.json")]
    assert {record["experiment"] for record in records} == {"a1_baseline", "a1b_baseline_balanced"}
    for record in records:
        assert record["seed"] == 5 and record["data"]["name"] == "drawn-few"
        assert record["config"]["learning_rate"] == 0.003 and record["results"]["epochs"] == 2
    text = target.read_text()
    assert "These are not FER2013" in text and "the text speaks of the published one" in text
    assert "image/png" in text


@pytest.mark.slow
def test_papermill_with_an_unknown_parameter_fails_and_says_so(tmp_path):
    notebook, target = PROJECT / "notebooks" / "03_a1_baseline.ipynb", tmp_path / "out.ipynb"
    done = run_papermill(notebook, target, "-p", "data", "drawn", "-p", "epoch", "2")
    assert done.returncode != 0 and "no parameter 'epoch' here; there are experiment, baseline, data" in done.stderr


@pytest.mark.slow
def test_a_picture_of_ones_own_is_answered(tmp_path):
    notebook, runs = PROJECT / "notebooks" / "20_try_a_photo.ipynb", PROJECT / "reports" / "runs"
    Image.fromarray(draw_picture(["Fear", "Sad"])).save(tmp_path / "two.png")
    done = run_papermill(notebook, tmp_path / "out.ipynb", "-p", "picture", str(tmp_path / "two.png"), FER_RUNS=runs)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "2 faces were found" in (tmp_path / "out.ipynb").read_text()


def run_nbval(notebook, *arguments, **changes):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "nbval.plugin", "-p", "no:cacheprovider", *arguments]
    changes["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = 1  # those of the tests themselves take a second to load
    done = run_kernel([*command, str(notebook)], PROJECT, **changes)
    assert done.returncode == 0, f"{done.stdout[:5000]} … {done.stdout[-3000:]}{done.stderr[-2000:]}"


@pytest.mark.slow
@pytest.mark.skipif(REAL.is_file(), reason="as published on FER2013 they are tested below, on drawn faces by the site")
def test_nbval_on_a_smoke_copy(path, tmp_path):
    """On the drawn faces, one seed, one epoch; cells marked NBVAL_CHECK_OUTPUT must give what is published."""
    if "data" not in papermill.inspect_notebook(path):
        pytest.skip("reads records alone: it is tested as published")
    given = {name: value for name, value in PROFILE.items() if name in papermill.inspect_notebook(path)}
    copy = tmp_path / path.name
    papermill.execute_notebook(path, copy, given, prepare_only=True)
    # what papermill prepares has no outputs: take the published ones, to compare with
    published, prepared = nbformat.read(path, 4), nbformat.read(copy, 4)
    outputs = {cell.source: cell for cell in published.cells if cell.cell_type == "code"}
    for cell in prepared.cells:
        if cell.source in outputs:
            cell.outputs = outputs[cell.source].outputs
            cell.execution_count = outputs[cell.source].execution_count
    nbformat.write(prepared, copy)
    run_nbval(copy, "--nbval-lax")


def list_changed_files():
    """What git sees changed, with its content: nothing, in a fresh clone."""
    commands = (["git", "status", "--porcelain"], ["git", "diff"])
    return [subprocess.run(command, cwd=PROJECT, capture_output=True).stdout for command in commands]


@pytest.mark.slow
def test_nbval_strictly_on_what_is_published(path):
    """With default parameters a notebook reads the records back, gives the very outputs that are committed, and changes
    no file."""
    if "data" in papermill.inspect_notebook(path) and not REAL.is_file():
        pytest.skip("needs FER2013: set FER_DATA to its file")
    runs = PROJECT / "reports" / "runs"
    before, changed = sorted(runs.glob("*/*")), list_changed_files()
    sanitize = PROJECT / "tests" / "nbval_sanitize.cfg"
    run_nbval(path, "--nbval", f"--nbval-sanitize-with={sanitize}", FER_RUNS=runs, FER_DATA=REAL)
    assert sorted(runs.glob("*/*")) == before, "it trained"
    assert list_changed_files() == changed
