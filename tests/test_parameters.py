"""What a notebook refuses, in one line, before anything is trained."""

import nbformat
import pytest
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from fer_lib.data import DataError, load_data
from fer_lib.notebook import ParameterError, check_parameters
from tests.conftest import PROJECT

pytestmark = pytest.mark.slow

CELL = """experiment: str = "a2_batchnorm"  # the step
others: list[str] = ["a1_baseline"]  # beside it
baseline: str = "a1b_baseline_balanced"  # the step it is compared with
data: str = "auto"  # a file
seeds: list[int] = [0, 1]  # runs
epochs: int = 0  # 0: as published
learning_rate: float = 1e-3  # of Adam
retrain: bool = False  # or not
wandb_mode: str = "auto"  # mirror
picture: str | None = None  # a file
eigenfaces: int = 7  # drawn
rotation: float = 10.0  # degrees
"""


def check(given):
    check_parameters(["", CELL, f"# Parameters\n{given}\n"])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("learning_rate = float('inf')", "learning_rate: inf, expected a finite number"),
        ("learning_rate = float('nan')", "learning_rate: nan, expected a finite number"),
        (f"learning_rate = {yaml.safe_load('1e-3')!r}", "'1e-3' is no float; write a number with a point, .* 0.001"),
        ("learning_rate = True", "True is no float; write a number with a point"),
        ("learning_rate = -1.0", "learning_rate: -1.0, expected a number above 0"),
        ("retrain = 'true'", "'true' is no bool; write True or False"),
        ("retrain = 'off'", "'off' is no bool; write True or False"),
        ("epochs = 5.0", "5.0 is no int; write a whole number, as in -p epochs 5"),
        ("epochs = -1", "epochs: -1, expected a whole number of at least 1"),
        ("data = 20131225", "20131225 is no str; papermill's -r passes what it is given as text"),
        ("picture = 5", "5 is no .*; papermill's -r passes what it is given as text, or None"),
        ("seeds = '[0, 1]'", r"is no list\[int\]; give lists with papermill's -y, as in -y 'seeds: \[0, 1\]'"),
        ("seeds = [0, 0]", "one or more different whole numbers from 0"),
        ("seeds = [4294967296]", "one or more different whole numbers from 0"),
        ("wandb_mode = 'foo'", "wandb_mode: no 'foo'; there are auto, online, offline, disabled"),
        ("experiment = 'a2_batchnrom'", "experiment: no experiment 'a2_batchnrom'; there are a1_baseline"),
        ("others = ['a1_baseline', 'none']", "others: no experiment 'none'"),
        ("others = []", "others: empty, expected one at least"),
        ("eigenfaces = 0", "eigenfaces: 0, expected 1 to 20"),
        ("rotation = 1000.0", "rotation: 1000.0, expected 0 to 180"),
        ("baseline = 'a2_batchnorm'", "experiment: a2_batchnorm is baseline too; name another experiment for one of"),
    ],
)
def test_what_cannot_be_used_is_refused_with_what_to_write_instead(given, message):
    with pytest.raises(ParameterError, match=f"^parameter .*{message}"):
        check(given)


def test_a_whole_profile_is_taken_by_a_notebook_that_lacks_parts_of_it_and_nothing_else_is():
    profile = yaml.safe_load((PROJECT / "params" / "quick.yaml").read_text())
    given = "\n".join(f"{name} = {value!r}" for name, value in profile.items())
    assert "show_faces" in given and "show_faces" not in CELL
    check(given)
    with pytest.raises(ParameterError, match="no parameter 'epoch' here"):
        check(given + "\nepoch = 3")
    with pytest.raises(ParameterError, match="no parameter 'show_faces' here"):
        check("show_faces = True")


def test_a_parameter_edited_by_hand_is_refused_too():
    with pytest.raises(ParameterError, match="parameter epochs: 5.0 is no int"):
        check_parameters(["", CELL.replace("epochs: int = 0", "epochs: int = 5.0")])


@pytest.mark.parametrize("given", ["epochs = 0", "epochs = 3", "learning_rate = 1", "picture = 'a'", "seeds = [7]"])
def test_what_can_be_used_passes(given):
    check(given)


def test_data_that_is_no_path_is_told_before_the_parameters_are_looked_at():
    with pytest.raises(DataError, match="data: 20131225 is no path; papermill's -r"):
        load_data(20131225)


def test_a_refused_parameter_is_one_line_in_a_notebook():
    code = f"from fer_lib.notebook import check_parameters\ncheck_parameters([{CELL!r}, '# Parameters\\nepochs = 5.0'])"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with pytest.raises(CellExecutionError):
        NotebookClient(notebook, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output["traceback"] == [
        "ParameterError: parameter epochs: 5.0 is no int; write a whole number, as in -p epochs 5"
    ]
