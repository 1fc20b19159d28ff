# From a fresh clone, with Python 3.11 or newer and make: `make run`, then `make test`.
# Another interpreter: `make run PYTHON=python3.12`. Nothing is fetched but by pip, into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
JOBS ?= 2

.PHONY: help run test lint lab bench-digits bench-speed zoo app bench-panel panels venv clean

help:           ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 22

run: $(STAMP)   ## compress a small network on the bundled digits (minutes), into runs/01_compress_digits
	$(BIN)/python -m geta_nb.bench.run_notebook notebooks/01_compress_digits.ipynb runs/01_compress_digits

test: lint      ## lint, types, then every test and notebook
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(STAMP)  ## ruff and mypy --strict
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

lab: $(STAMP)   ## JupyterLab on the notebooks
	$(BIN)/python -m jupyter lab --notebook-dir=notebooks

bench-digits: $(STAMP)  ## the README's benchmark table (resumes where it was stopped)
	$(BIN)/python -m geta_nb.bench.digits_table --output runs/bench_digits

zoo: $(STAMP)   ## all laws on all nets, and docs/zoo.md (half an hour; resumes where it was stopped)
	$(BIN)/python tests/zoo_table.py

bench-speed: $(STAMP)   ## from a model to its first cut model, beside torch-pruning: docs/speed.md (resumes where it was stopped)
	$(BIN)/python -m geta_nb.bench.speed_table --output runs/bench_speed

app: $(STAMP)   ## the studio as a page of its own on loopback, with Voilà
	JUPYTER_PATH=$(CURDIR)/app $(BIN)/python -m voila app/studio.ipynb --template=studio --Voila.ip=127.0.0.1

bench-panel: $(STAMP)  ## how fast the budget panel answers on BERT-base
	$(BIN)/python -m geta_nb.bench.panel_speed

panels:         ## copy the panels' browser files to where the package ships them
	mkdir -p geta_nb/widgets/static/panels
	cp widgets/panels/*.js widgets/panels/*.css geta_nb/widgets/static/panels/

venv: $(STAMP)  ## the environment alone

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geta-nb needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@touch $@

clean:          ## remove the environment and all results
	rm -rf $(VENV) runs
