# make report   set up, execute every notebook with papermill, build the site: what a reader wants
# make test     set up, run the tests
# make full     also train every published run that is not on record (needs FER2013)
# make search   train the trials of report B's searches (needs FER2013)
# make publish  execute notebooks/ in place on FER2013, with their defaults
# make results  write reports/results.csv, report.pdf, and the README's summary and tables from the records
# make bench    time reading, loading and training against what is usual
# make lock     compile requirements.txt anew from pyproject.toml
#
# FER_DATA=/path/to/icml_face_data.csv.zip names FER2013; without it, data/ is searched, and
# without a file there the drawn faces stand in.

PYTHON ?= python3
CORES ?= 2
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONWARNINGS := ignore::DeprecationWarning
OPTIONS = --quiet all --show-failed-logs --cores $(CORES) --rerun-triggers mtime params

.PHONY: report site full search publish results bench test lock

report site: .venv/ready
	@snakemake site $(OPTIONS)
	@echo "Open reports/site/index.html"

full: .venv/ready
	@snakemake full $(OPTIONS)
	@echo "Open reports/site/index.html"

search: .venv/ready
	@snakemake search $(OPTIONS)

publish results: .venv/ready
	@snakemake $@ --force $(OPTIONS)

bench: .venv/ready
	@python -m fer_lib.bench

test: .venv/ready
	@ruff check -q . && ruff format -q --check .
	@OMP_NUM_THREADS=1 python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

lock:
	$(PYTHON) -m venv .venv && .venv/bin/pip install --quiet uv
	.venv/bin/uv pip compile pyproject.toml --quiet --universal --upgrade --no-annotate --no-header --no-emit-index-url -o requirements.txt
	echo "-e ." >> requirements.txt
