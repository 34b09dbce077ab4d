"""The write-up: nothing in it that the records do not give, and the PDF that is committed is of these records."""

import re
from pathlib import Path

import jinja2
import pytest
from jinja2 import meta
from PIL import Image

from fer_lib import claims
from fer_lib.claims import read_claims, read_verdicts
from fer_lib.evaluate import estimate_metric
from fer_lib.extras.photo import draw_picture
from fer_lib.record import read_published_runs
from fer_lib.report import paper, template
from tests.conftest import PROJECT

pytestmark = pytest.mark.slow  # it reads every record and draws every figure


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The write-up filled in from the project's records, and the folder of its figures."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FER_RUNS", raising=False)
        yield template.fill_in((PROJECT / "reports" / "paper.md").read_text(), folder), folder


def test_numbers_are_those_of_the_records(published, tmp_path, monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    runs = [run for run in read_published_runs() if run.experiment.name == "a3_dropout"]
    mean = estimate_metric(runs, "test_accuracy")
    assert template.fill_in('{{ accuracy("a3_dropout") }}', tmp_path).split() == mean.format().split()
    change = template.fill_in('{{ gain("a2_batchnorm", "a3_dropout") }}', tmp_path)
    assert re.fullmatch(r"\+\d\.\d\s±\s\d\.\d\n", change)
    told = template.fill_in('{{ contrast("Q7", "validation_accuracy") }}', tmp_path).split()
    assert told[0] == template.fill_in('{{ effect("Q7") }}', tmp_path).split()[0]


def test_verdicts_are_set_beside_the_test_splits_and_the_reports_effects(tmp_path, monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    table, statements = read_verdicts(), {s.number: s for s in read_claims()[1]}
    judged = [row for _, row in table.iterrows() if isinstance(row["test_verdict"], str)]
    same = sum(row["test_verdict"] == row["verdict"] for row in judged)
    told = template.fill_in("{{ compare_splits() }}", tmp_path).strip()
    assert told == (f"all {same}" if same == len(judged) else f"{same} of {len(judged)}") and len(judged) > 20
    given = {number: s.reported for number, s in statements.items() if s.reported == s.reported}
    inside = sum(table.loc[number, "low"] <= value <= table.loc[number, "high"] for number, value in given.items())
    told = template.fill_in("{{ compare_reported() }}", tmp_path)
    assert told.startswith(f"{inside or 'none'} of {len(given)} lie")
    rows = template.fill_in("{{ show_crossing() }}", tmp_path).splitlines()
    share = estimate_metric([run for run in read_published_runs(names=["da6_all"])], "validation_accuracy").format()
    assert len(rows) == 6 and share.split()[0] in rows[2].split("|")[3] and "without" in rows[3]


@pytest.mark.parametrize(
    "text",
    [
        '{{ accuracy("a99_unheard_of") }}',
        '{{ gain("s5_averaging", "a99_unheard_of") }}',
        '{{ effect("A-C99.1") }}',
        "{{ something }}",
        "{{ facts.something }}",
    ],
)
def test_what_is_not_on_record_is_an_error_not_a_gap(text, tmp_path, monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    with pytest.raises((KeyError, jinja2.UndefinedError)):
        template.fill_in(text, tmp_path)


def test_a_statement_that_wants_a_run_has_no_effect_to_be_told(tmp_path, monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    verdicts = read_verdicts()
    verdicts.loc["A-C6.3", ["effect", "low", "high"]] = float("nan")
    monkeypatch.setattr(claims, "read_verdicts", lambda: verdicts)
    with pytest.raises(KeyError, match="A-C6.3 is no statement that was measured"):
        template.fill_in('{{ effect("A-C6.3") }}', tmp_path)


def test_a_text_can_ask_for_what_some_text_asks_and_for_nothing_else(tmp_path, monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    texts = [(PROJECT / "reports" / f"{name}.md").read_text() for name in ("paper", "card", "summary")]
    asked = set().union(*(meta.find_undeclared_variables(jinja2.Environment().parse(text)) for text in texts))
    assert asked - {"dict"} == {name for name in dir(template.Records(tmp_path)) if not name.startswith("_")}


def test_minus_signs_are_true_ones_and_identifiers_are_left_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    text = "-1.5 to -0.2, A-C1, doi:10.1007/978-3-642-42051-1_16, 0-1"
    assert template.fill_in(text, tmp_path) == "−1.5 to −0.2, A-C1, doi:10.1007/978-3-642-42051-1_16, 0-1\n"


def test_it_is_read_in_ten_minutes(published):
    """At most 2,500 words of text, without tables, captions, references and numbers."""
    text = re.sub(r"^(\|.*|!\[.*|Table \d+\..*)$", "", published[0].split("## References")[0], flags=re.M)
    assert len(re.findall(r"\S*[A-Za-z]\S*", text)) <= 2500


def test_every_figure_is_drawn_and_every_reference_cited(published):
    text, folder = published
    figures = re.findall(r"!\[[^\]]+\]\((\S+)\)", text)
    assert figures and sorted(figures) == sorted(path.name for path in Path(folder).glob("*.svg"))
    body, references = text.split("## References")
    for author, year in re.findall(r"^- (\w+), .*?\((\d{4})\)", references, re.M):
        assert re.search(rf"{author}[^.;)]*(et al\.)?[^.;)]*\(?{year}", body), f"{author} {year} is not cited"


def test_the_model_card_is_of_the_records_and_its_example_runs(tmp_path, monkeypatch):
    monkeypatch.delenv("FER_RUNS")
    card = (PROJECT / "reports" / "model_card.md").read_text()
    source = (PROJECT / "reports" / "card.md").read_text()
    assert template.fill_in(source, tmp_path) == card, "run `make results`"
    example, _ = re.findall(r"```python\n(.*?)```", card, re.S)  # the other needs what `make onnx` writes
    Image.fromarray(draw_picture(["Fear", "Sad"])).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(example, names)
    assert names["probabilities"].shape == (2, 7) and names["probabilities"].sum(1) == pytest.approx([1, 1])
    (weights,) = re.findall(r"`(reports/runs/\S+\.safetensors)`", card)
    assert (PROJECT / weights).stat().st_size <= 10e6


def test_a_recipe_and_its_treatments_are_told_in_words():
    told = template.Records.list_means(None, "s15_more_varied")
    assert told.startswith(
        "Adam, a learning rate that rises to 0.002 and falls to zero along half a cosine, weight decay"
    )
    assert "moving average" in told and "smaller images in the first 50% of the epochs" in told
    treated = template.Records.list_treatments(None, "s15_more_varied")
    assert "enlarged or shrunk by up to 20%" in treated and treated.endswith("with a probability of 0.5")
    told = template.Records.list_means(None, "s20_taught")
    assert told.endswith("and 80% of the loss against the mean answers of the networks of S18 and S19")
    assert "a square of 40×40 pixels" in template.Records.list_treatments(None, "s20_taught")
    assert template.Records.list_means(None, "a1_baseline") == "Adam and a learning rate of 0.001"


def test_the_pdf_is_of_the_records(published, tmp_path):
    """Page by page the same text as what is committed; how it is typeset is typst's."""
    from pypdf import PdfReader

    text, folder = published
    paper.make_pdf(text, folder, tmp_path / "report.pdf")
    made, kept = (PdfReader(path) for path in (tmp_path / "report.pdf", PROJECT / "reports" / "report.pdf"))
    assert [page.extract_text() for page in made.pages] == [page.extract_text() for page in kept.pages], (
        "run `make results`"
    )
    for text in (page.extract_text() for page in kept.pages):
        told = "a page with hardly a word: what follows did not fit on it, and maybe not on the next either"
        assert "Figure" in text or len(text.split()) > 50, told
