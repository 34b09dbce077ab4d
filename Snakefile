"""From recorded runs to executed notebooks to the site. `make` calls it; so can you:

    snakemake -c2 site      the report: read recorded runs back, execute the notebooks, build the site
    snakemake -c2 runs      train every published run that is not on record; --config narrows them: experiments,
                            seeds, data=drawn-few. `make full` is this and then the site
    snakemake -c2 search    train every trial of report B's searches that is not on record
    snakemake -c1 publish   execute notebooks/ in place, with their defaults, on FER2013
"""

import json
import shutil
import sys
from pathlib import Path

import yaml

from fer_lib.data import find_data, load_data
from fer_lib.experiments import EXPERIMENTS
from fer_lib.extras.photo import EXPERIMENT, SEED
from fer_lib.extras.search import list_families, name_trial, read_grid
from fer_lib.record import digest_sources, list_sources

NOTEBOOKS = sorted(path.stem for path in Path("notebooks").glob("*.ipynb"))
QUICK = find_data() is None  # no FER2013: a profile on the drawn faces
SEEDS = config.get("seeds", [0, 1, 2])
DATA = config.get("data", "fer2013")  # the name that its runs are recorded under: drawn or drawn-few to try things
CHOSEN = config.get("experiments", list(EXPERIMENTS))
CHOSEN = [CHOSEN] if isinstance(CHOSEN, str) else CHOSEN
RUNS = expand(
    "reports/runs/{experiment}/{data}-seed{seed}/run.json",
    experiment=CHOSEN,
    data=DATA,
    seed=SEEDS,
)
if unknown := set(config) - {"experiments", "seeds", "data"}:
    raise WorkflowError(f"--config knows experiments, seeds and data, and no {', '.join(sorted(unknown))}")
if DATA not in ("fer2013", "drawn", "drawn-few"):
    raise WorkflowError(f"data={DATA}: fer2013, drawn or drawn-few; of others, python -m fer_lib.train EXPERIMENT --data")
if unknown := set(CHOSEN) - set(EXPERIMENTS):
    raise WorkflowError(f"no experiment {', '.join(sorted(unknown))}; there are {', '.join(EXPERIMENTS)}")
REPORTS, MADE_FROM = Path("reports"), Path("reports/made_from.txt")
SOURCES = [str(path) for path in list_sources(REPORTS)]
RECORDED = [path for path in SOURCES if path.endswith("run.json")]
if MADE_FROM.exists() and MADE_FROM.read_text().strip() == digest_sources(REPORTS):
    SOURCES = ancient(SOURCES)  # the tables are of these, whatever a clone's files are dated


localrules:  # only trainings are worth a cluster's queue
    notebook,
    browser,
    site,
    paper,
    results,
    publish,


onstart:
    if QUICK and DATA == "fer2013":
        print("FER2013 is not at hand (FER_DATA names it): the notebooks show drawn faces", file=sys.stderr)



rule site:
    input:
        expand("reports/notebooks/{name}.ipynb", name=NOTEBOOKS),
        "reports/conf.py",
        "reports/pages.py",
        expand("reports/{page}.md", page=["index", "results", "run", "statistics", "references", "try"]),
        "reports/site.css",
        "reports/site.js",
        "reports/try.js",
        "reports/browser/missing.txt",
        "reports/results.csv",
        "reports/paper/index.md",
        "reports/model_card.md",
    output:
        "reports/site/index.html",
    message:
        "building the site"
    shell:
        "rm -rf reports/site"
        " && sphinx-build -q -E -d .snakemake/doctrees reports reports/site && rm -r reports/jupyter_execute"


rule browser:
    input:
        f"reports/runs/{EXPERIMENT}/fer2013-seed{SEED}/weights.safetensors",
        "reports/facts.json",
    output:
        "reports/browser/missing.txt",  # empty, with network.js beside it, if nothing is
    params:
        npm=shutil.which("npm") is not None,  # once it is there, what it gets is got
    message:
        "preparing the page to try the network on"
    shell:
        "python -m fer_lib.extras.browser"


rule paper:
    input:
        "reports/paper.md",
        "reports/paper.typ",
        "reports/card.md",
        "reports/claims.yaml",
        "reports/verdicts.csv",
        "reports/method.json",
        "reports/published.csv",
        "reports/confusions.json",
        "reports/facts.json",
        "reports/results.csv",  # whose rule writes the tables above too
        RECORDED,
    output:
        "reports/report.pdf",
        "reports/paper/index.md",
        "reports/paper/ladder.json",  # what the site says of the figure; the others' lie beside it
        "reports/model_card.md",
    message:
        "typesetting reports/report.pdf"
    shell:
        "python -m fer_lib.report.paper"


def choose_parameters(wildcards):
    """What of the profile this notebook takes, as YAML; nothing where FER2013 is at hand.

    It must not ask for the rule's input: Snakemake then takes no change of it for a reason to run again."""
    import papermill

    profile = yaml.safe_load(Path("params/quick.yaml").read_text()) if QUICK else {}
    known = papermill.inspect_notebook(f"notebooks/{wildcards.name}.ipynb")
    return json.dumps({name: value for name, value in profile.items() if name in known})


rule notebook:
    input:
        "notebooks/{name}.ipynb",
        RECORDED,
        "reports/results.csv",  # whose rule writes the verdicts and gradients too, which they show
    output:
        "reports/notebooks/{name}.ipynb",
    log:
        "reports/notebooks/{name}.log",
    params:
        quick=choose_parameters,
    retries: 2  # kernels that start at once can race for a port
    message:
        "executing {input[0]}"
    shell:
        "OMP_NUM_THREADS={threads} papermill {input[0]} {output} --no-progress-bar -y {params.quick:q} > {log} 2>&1"


rule run:
    input:  # a network that learns from others comes after them, but is not trained anew for their files' times
        lambda wildcards: ancient(
            expand(
                "reports/runs/{teacher}/{data}-seed{seed}/run.json",
                teacher=EXPERIMENTS[wildcards.experiment].teachers,
                data=wildcards.data,
                seed=SEEDS,
            )
        ),
    output:
        update("reports/runs/{experiment}/{data}-seed{seed}/run.json"),  # else Snakemake deletes it before the job
    wildcard_constraints:
        seed=r"\d+",
    params:
        data=lambda wildcards: "auto" if wildcards.data == "fer2013" else wildcards.data,
    message:
        "training {wildcards.experiment}, seed {wildcards.seed}"
    shell:
        "OMP_NUM_THREADS={threads} python -m fer_lib.train {wildcards.experiment} --seed {wildcards.seed}"
        " --data {params.data}"


rule trial:
    output:
        update("reports/sweeps/{family}/fer2013/{trial}.json"),
    params:
        trial=lambda wildcards: " ".join(f"--{pair}" for pair in wildcards.trial.split(",")),
    message:
        "trying {wildcards.family} with {wildcards.trial}"
    shell:
        "OMP_NUM_THREADS={threads} python -m fer_lib.extras.search {wildcards.family} {params.trial}"


rule search:
    input:
        [f"reports/sweeps/{family}/fer2013/{name_trial(trial)}.json" for family in list_families() for trial in read_grid(family)],


def list_runs(wildcards):
    """What `runs` is to train; the drawn faces that stand in are no FER2013."""
    if QUICK and DATA == "fer2013":
        raise WorkflowError("FER2013 is not at hand: name its file in FER_DATA, or try with --config data=drawn-few")
    if DATA == "fer2013" and load_data().name != "fer2013":
        raise WorkflowError("FER_DATA names data of your own, not FER2013: python -m fer_lib.train EXPERIMENT trains on them")
    return RUNS


rule runs:
    input:
        list_runs,


rule results:
    input:
        SOURCES,
    output:
        "reports/results.csv",
    message:
        "writing the tables, the PDF and the README's summary from the records"
    shell:
        "python -m fer_lib.report.publish && python -m fer_lib.report.paper"


rule publish:
    message:
        "executing notebooks/ in place"
    shell:
        "jupyter nbconvert --log-level WARN --to notebook --execute --inplace"
        " --ExecutePreprocessor.record_timing=False notebooks/*.ipynb"
