# make bench   set up and run the main job: two models on real data, and the board
# make test    everything that must hold
# make perf    how fast the harness, the models (on a GPU too, where there is one) and the attention-SVM solver are, as ratios; what a cell costs the harness, feeding, looking inside, a board of 10,000 cells and 50 readers take
# make check   lint, format, types, import contracts
# make coverage   which lines of the harness the tests reach, fits and commands included
# make torture N=200   kill the suite `smoke` 200 times at random moments, and compare with a run that nobody disturbed

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin

N ?= 200

.PHONY: bench test perf coverage check torture clean

bench: $(VENV)/.installed
	$(BIN)/whitebench run smoke --parallel 2
	$(BIN)/whitebench board smoke

test: $(VENV)/.installed-dev
	# The tests start some hundred processes: where none may write bytecode, each would compile our modules again.
	$(BIN)/python -m compileall -q benchmark plugins leaderboards
	$(BIN)/pytest -n 2 --dist worksteal

perf: $(VENV)/.installed-dev
	$(BIN)/python -m tests.perf.harness
	$(BIN)/python -m tests.perf.overhead
	$(BIN)/python -m tests.perf.models
	$(BIN)/python -m tests.perf.gpu
	$(BIN)/python -m tests.perf.sizes
	$(BIN)/python -m tests.perf.svm
	$(BIN)/python -m tests.perf.looking
	$(BIN)/python -m tests.perf.feeding
	$(BIN)/python -m tests.perf.board
	$(BIN)/python -m tests.perf.readers

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: $(VENV)/.installed-dev
	$(BIN)/coverage erase
	# Some tests of signals and of folders that stay empty fail on the watcher's own handlers and files.
	-COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/coverage run -m pytest -q
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

torture: $(VENV)/.installed-dev
	$(BIN)/python -m tests.torture $(N)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
