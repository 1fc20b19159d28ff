# From a fresh clone, with Python 3.11 or newer and make: `make run`, then `make test`.
# Another interpreter: `make run PYTHON=python3.12`. Nothing is fetched but by pip, into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
JOBS ?= 2
export GETA_SCREENSHOTS ?= $(CURDIR)/runs/screenshots

.PHONY: help run test test-whole lint lab app bench-digits bench-baselines bench-fashion bench-lm bench-speed bench-step bench-sharded bench-explorer bench-panel bench-live bench-big-models bench-tutorials durations zoo widgets house picture notebooks keep browser venv clean docs bench-latency onnx-table

help:           ## what there is to make
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 22

run: $(STAMP)   ## compress a small network on the bundled digits (minutes), into runs/01_compress_digits
	$(BIN)/python -m geta_nb.bench.run_notebook notebooks/01_compress_digits.ipynb runs/01_compress_digits

test: lint browser  ## lint, types, then every test and notebook
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0

test-whole: lint browser  ## as test, with all laws of all nets and all combinations (hours)
	GETA_WHOLE=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0

durations: $(STAMP) browser  ## run every test, and keep which files take long: the next runs begin with those
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0 --keep-durations

lint: $(STAMP)  ## ruff and mypy --strict
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

notebooks: $(STAMP)  ## every notebook in smoke mode, with progress (minutes), into runs/smoke; a failing cell is named and fails it
	@failed=; for notebook in $$($(BIN)/geta-nb list | cut -d' ' -f1); do echo "== $$notebook"; \
	  $(BIN)/geta-nb run $$notebook --smoke -o runs/smoke/$$notebook || failed="$$failed $$notebook"; done; \
	if [ -n "$$failed" ]; then echo "failed:$$failed" >&2; exit 1; fi

keep: $(STAMP)  ## write the outputs that the notebooks keep (NAMES="01_compress_digits ..."; all: an hour)
	$(BIN)/python -m tests.pipelines.keep $(NAMES)

docs: $(STAMP)  ## the documentation site, into runs/site (opens without network)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lab: $(STAMP)   ## JupyterLab on the notebooks
	$(BIN)/python -m jupyter lab --notebook-dir=notebooks

bench-digits: $(STAMP)  ## the README's benchmark table (resumes where it was stopped)
	$(BIN)/python -m geta_nb.bench.digits_table --output runs/bench_digits

bench-baselines: $(STAMP)  ## eight other methods beside GETA at equal cost: docs/baselines.md (resumes where it was stopped)
	$(BIN)/python -m geta_nb.bench.baseline_table --output runs/bench_baselines

bench-fashion: $(STAMP)  ## accuracy at equal cost on Fashion-MNIST, hours; resumes from docs/data/fashion.jsonl (DATA_DIR=folder of the IDX files)
	$(BIN)/python -m geta_nb.bench.fashion_table --output runs/bench_fashion $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

bench-lm: $(STAMP)  ## a language model compressed by GETA and cut by others: docs/language_models.md, hours; resumes from docs/data/lm.jsonl
	$(BIN)/python -m geta_nb.bench.lm_table --output runs/bench_lm --page docs/language_models.md

zoo: $(STAMP)   ## all laws on all nets, and docs/zoo.md (half an hour on two quiet cores; resumes where it was stopped)
	$(BIN)/python -m tests.zoo.table

bench-speed: $(STAMP)   ## from a model to its first cut model, beside torch-pruning: docs/speed.md (resumes where it was stopped)
	$(BIN)/python -m geta_nb.bench.speed_table --output runs/bench_speed

bench-step: $(STAMP)    ## what a training step costs beside the plain one: docs/step_cost.md (resumes where it was stopped)
	$(BIN)/python -m geta_nb.bench.step_table --output runs/bench_step

bench-sharded: $(STAMP) ## the same on two ranks, beside plain FSDP2: docs/step_cost.md (resumes where it was stopped)
	$(BIN)/python -m geta_nb.bench.sharded_step --output runs/bench_sharded

.PHONY: bench-gpu
bench-gpu: $(STAMP)     ## what training costs on a GPU: docs/gpu.md (eight minutes at most; without a GPU it says so)
	$(BIN)/python -m geta_nb.bench.gpu --output runs/bench_gpu --page docs/gpu.md

bench-latency: $(STAMP)  ## dense and compressed in torch, ONNX Runtime and OpenVINO: docs/latency.md (resumes where it was stopped)
	$(BIN)/python -m geta_nb.bench.latency_table --output runs/bench_latency --page docs/latency.md

onnx-table: $(STAMP)  ## which nets of the zoo go through gt.export_onnx, and how exactly: docs/onnx.md (resumes where it was stopped)
	$(BIN)/python -m tests.onnx.table

widgets:        ## rebuild the browser side of the widgets (needs node and npm; the result is committed)
	cd widgets/explorer && npm ci --no-audit --no-fund --ignore-scripts && npm run build

bench-explorer: $(STAMP)  ## how fast the explorer opens, moves and unfolds, in an installed Chromium
	$(BIN)/python -m geta_nb.bench.explorer_speed --output runs/bench_explorer

.PHONY: first-view
first-view: $(STAMP)  ## the explorer's first view of BERT, Llama and a UNet, as pictures for README and docs
	$(BIN)/python -m geta_nb.bench.first_view --output docs/images

app: $(STAMP)   ## the studio as a page of its own on loopback, with Voilà
	JUPYTER_PATH=$(CURDIR)/widgets/app $(BIN)/python -m voila widgets/app/studio.ipynb --template=studio --Voila.ip=127.0.0.1

bench-panel: $(STAMP)  ## how fast the budget panel answers on BERT-base
	$(BIN)/python -m geta_nb.bench.panel_speed

bench-live: $(STAMP)  ## how soon a run stops, in Python and by hand in a page, and bars follow a slider
	$(BIN)/python -m geta_nb.bench.live_speed
	$(BIN)/python -m tests.browser.live_speed

bench-tutorials: $(STAMP)  ## what each tutorial takes, beside the two minutes that it may
	$(BIN)/python -m tests.house.tutorial_speed

bench-big-models: $(STAMP)  ## what Llamas of 7B and 70B and a 2.7B Phi take to be analysed, without their weights
	$(BIN)/python -m geta_nb.bench.big_models

house: $(STAMP)  ## the picture of the rooms and their imports, docs/images/architecture.svg (when imports or doors change)
	$(BIN)/python -m tests.house.picture

picture: $(STAMP)  ## the README's picture of the studio
	$(BIN)/python -m tests.browser.studio_picture

browser:        ## a Chromium for the browser tests: what is installed, else Debian's package (as root); without one they are skipped
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  (timeout 300 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -qq --no-install-recommends chromium) >/dev/null 2>&1; fi; \
	command -v chromium >/dev/null || echo "no Chromium is installed: the browser tests will be skipped"

venv: $(STAMP)  ## the environment alone

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "geta-nb needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	@$(BIN)/python -m pip uninstall -qqq --yes torchao  # it was in the environment once; see the extra in pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps --upgrade --target $(VENV)/beside torchao
	@touch $@

clean:          ## remove the environment and all results
	rm -rf $(VENV) runs
