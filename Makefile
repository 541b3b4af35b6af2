# Every target works from a fresh clone: the environment is made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Without those on CIFAR-10, whose data must be downloaded first: `make figures-cifar10`.
RECIPES := $(filter-out recipes/%-cifar10.yaml,$(sort $(wildcard recipes/*.yaml)))
# One more than the cores of a small machine: some tests wait for processes of their own.
WORKERS ?= 3
PYTEST = $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal
# Every recipe at small size, against its pinned table and figures and what the paper says of it.
REGRESSION := tests/test_figures_regression.py tests/test_recipe_physics.py

.PHONY: demo test regression lint lowest figures figures-cifar10 contact-sheet bench docs reference clean

$(READY): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'tlcli needs Python 3.11 or newer')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dask,data,docs,html]' --group dev
	@# mpi4py compiles against an installed MPI; without one its tests are skipped and say so.
	if command -v mpiexec >/dev/null; then $(BIN)/python -m pip install --quiet --editable '.[mpi]'; fi
	touch $(READY)

# A phase diagram of transfer, and the theory against regression on real images of digits.
demo: $(READY)
	$(BIN)/tlcli run recipes/phase-alpha2-gamma0.yaml recipes/digits-spectrum.yaml --output results --jobs 2
	$(BIN)/tlcli check results/phase-alpha2-gamma0
	@# A handful of samples and real images: the theory may be off by a quarter (8/D, D = 32 components).
	$(BIN)/tlcli check results/digits-spectrum --finite-size 8

test: $(READY)
	$(PYTEST) $(REGRESSION:%=--ignore=%)

regression: $(READY)
	$(PYTEST) $(REGRESSION)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# The Python of the documentation is checked with the package.
	$(BIN)/python docs/python_blocks.py
	$(BIN)/pyright
	$(BIN)/mypy
	$(BIN)/lint-imports

# The lower bounds of pyproject.toml are true: an environment of just these versions, and the wheel, runs every command.
lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --no-compile $$($(PYTHON) tests/lowest_versions.py)
	.venv-lowest/bin/python -m pip install --quiet --no-compile --no-deps --force-reinstall .
	.venv-lowest/bin/python tests/lowest_versions.py --smoke

figures: $(READY)
	$(BIN)/tlcli run $(RECIPES) --output results/figures --jobs 2

# Downloads 170 MB on first use; with TLCLI_CIFAR10 set, the archive or folder that it names is read instead.
figures-cifar10: $(READY)
	test -n "$$TLCLI_CIFAR10" || $(BIN)/python -m tlcli.tasks.cifar
	$(BIN)/tlcli run recipes/fig2-cifar10.yaml recipes/fig4-cifar10.yaml --output results/figures --jobs 2

# All figures of the documentation on one sheet, docs/_build/contact-sheet.png.
contact-sheet: $(READY)
	$(BIN)/python docs/contact_sheet.py

bench: $(READY)
	$(BIN)/python -m benchmarks

docs: $(READY)
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# Pin the tables and figure structures of all recipes anew, after a deliberate change.
reference: $(READY)
	$(BIN)/python -m tests.update_reference

clean:
	rm -rf $(VENV) .venv-lowest results docs/_build
