# Everything sets itself up in .venv; the README has the same as plain `python -m` lines.
PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python)
REQUIREMENTS ?= requirements.txt
PORT ?= 8000
BIN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)
STAMP := .venv/installed.stamp
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONUTF8 := 1

.PHONY: help setup data book test models notebooks bench serve lab clean

help:  ## say what there is
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

$(STAMP): $(REQUIREMENTS) pyproject.toml
	test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r $(REQUIREMENTS)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	@touch $@

setup: $(STAMP)  ## create .venv and install; again only when the requirements change

data: setup  ## fetch every corpus once; afterwards all works offline
	$(BIN)/python -m gptlib corpora --all

book: setup  ## build the site into _build/html, warnings are errors
	$(BIN)/jupyter-book build . --all -W -n --keep-going

test: setup data  ## lint, unit tests, site, every notebook against its stored outputs
	$(BIN)/python tools/test.py

models: setup data  ## train the models in models/ again with the commands that made them (hours)
	$(BIN)/python tools/models.py

notebooks: setup data  ## execute and store every notebook, record its time and memory
	$(BIN)/python tools/notebooks.py

bench: setup data  ## measure speed beside other programs, into benchmarks/results (half an hour)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -r benchmarks/requirements.txt
	$(BIN)/python benchmarks/run.py

serve: book  ## show the site at http://localhost:8000
	$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

lab: setup  ## open the notebooks in JupyterLab
	$(BIN)/python -m jupyterlab --notebook-dir=notebooks

clean:  ## remove what was built, keep .venv and the data
	rm -rf _build build .pytest_cache .ruff_cache .hypothesis
