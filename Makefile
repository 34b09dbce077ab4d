# make report   set up, execute every notebook with papermill, build the site: what a reader wants
# make test     set up, run the tests
# make check    ruff, mypy on the core, the unit tests: a minute and a half
# make full     also train every published run that is not on record (needs FER2013)
# make search   train the trials of report B's searches (needs FER2013)
# make publish  execute notebooks/ in place on FER2013, with their defaults
# make results  write reports/results.csv, results.md, report.pdf and the README's summary from the records
# make bench    time reading, loading and training against what is usual
# make crash    kill trainings at random moments, and see whether they end with the same numbers
# make lock     compile requirements.txt anew from pyproject.toml
#
# PROFILE=slurm, with full or search, hands the trainings to a cluster (profiles/slurm/, INSTALL.md).
# CONFIG='data=drawn-few seeds=[0]', with full, narrows what it trains (Snakefile).
#
# FER_DATA=/path/to/icml_face_data.csv.zip names FER2013; without it, data/ is searched, and
# without a file there the drawn faces stand in.

PYTHON ?= python3
CORES ?= 2
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export PYTHONWARNINGS := ignore::DeprecationWarning
SNAKEMAKE = python -m fer_lib.extras.workflow
HERE = --cores $(CORES)
THERE = $(if $(PROFILE),--profile profiles/$(PROFILE),$(HERE))

.PHONY: report site full search publish results onnx bench check test lint suite crash lock

report site: .venv/ready
	@$(SNAKEMAKE) $(HERE) site
	@echo "Open reports/site/index.html"

# Two calls: only the second sees the new records, from which the notebooks and tables are made.
full: .venv/ready
	@$(SNAKEMAKE) $(if $(CONFIG),--config $(CONFIG)) $(THERE) runs
	@$(SNAKEMAKE) $(HERE) site
	@echo "Open reports/site/index.html"

search: .venv/ready
	@$(SNAKEMAKE) $(THERE) search

publish results: .venv/ready
	@$(SNAKEMAKE) $(HERE) --force $@

onnx: .venv/ready
	@python -m fer_lib.extras.onnx

bench: .venv/ready
	@python -m fer_lib.extras.bench

check: .venv/ready lint
	@OMP_NUM_THREADS=1 python -m pytest -q -n $(CORES) -m "not slow"

# Side by side, since mypy has one core busy for the better part of a minute.
test: .venv/ready
	@$(MAKE) --no-print-directory --jobs 2 lint suite

lint: .venv/ready
	@ruff check -q . && ruff format -q --check . && mypy

suite: .venv/ready
	@OMP_NUM_THREADS=1 python -m pytest -n $(CORES) --dist loadfile --no-loadscope-reorder

crash: .venv/ready
	@OMP_NUM_THREADS=1 FER_CRASHES=20 python -m pytest -q -s tests/test_crash.py

# What a set-up that failed has left is cleared first, not what was set up by hand; the build backend is the pinned one.
.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and \
	$(PYTHON) is %d.%d: name another, as in make PYTHON=python3.12" % sys.version_info[:2])'
	@[ ! -e .venv/unfinished ] || rm -rf .venv
	@echo "Setting up .venv: on Linux 3.5 GB are fetched, most of it CUDA, and 7 GB taken on disk; some minutes"
	@[ -e .venv/pyvenv.cfg ] || { mkdir -p .venv && touch .venv/unfinished && $(PYTHON) -m venv .venv; }
	.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f .venv/unfinished && touch $@

lock:
	$(PYTHON) -m venv .venv && .venv/bin/pip install --quiet uv
	.venv/bin/uv pip compile pyproject.toml --quiet --universal --upgrade --generate-hashes --no-annotate --no-header --no-emit-index-url --no-strip-extras -o requirements.txt
