# `make demo` and `make test` set themselves up; they need Python 3.11 to 3.13 and a package index.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
UV := uv==0.13.9
# A build for CPUs, where one is at hand; the one of the package index brings gigabytes of CUDA.
TORCH := torch==2.13.0+cpu
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null \
	&& echo $$p && break; done)

.PHONY: demo test test-slow check docs format bench bench-scale faults s3-up lock clean

demo: $(READY)
	$(BIN)/ironmask demo

# A process for each of two cores, and each file in one of them, in the order of their names: else files
# of few tests, which are the longest ones, come last and one core waits.
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder

# Two processes that both use all cores for matrices or networks wait for each other. Bytecode is kept whatever
# the caller's environment says: without it each process that a test starts compiles 1,300 modules.
test test-slow check: export OPENBLAS_NUM_THREADS := 1
test test-slow check: export OMP_NUM_THREADS := 1
test test-slow check demo: export PYTHONDONTWRITEBYTECODE :=

test: $(READY)
	$(BIN)/python -m pytest $(SPREAD)

test-slow: $(READY)
	$(BIN)/python -m pytest $(SPREAD) --durations=20 -m 'slow or network'

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_borders.py tests/test_project.py

# The page of all commands, from the command line's own help, and the table of presets.
docs: $(READY)
	PYTHONPATH=tests $(BIN)/python -m support.commands_page
	PYTHONPATH=tests $(BIN)/python -m support.presets_table

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	PYTHONPATH=tests $(BIN)/python -m bench

# What the driver does with tables of 1,000 and 10,000 shards. FULL=--full adds 100,000: an hour, 4 GB.
bench-scale: export OPENBLAS_NUM_THREADS := 1
bench-scale: $(READY)
	PYTHONPATH=tests $(BIN)/python -m bench.scale $(FULL)

faults: $(READY)
	PYTHONPATH=tests $(BIN)/python -m faults

s3-up: $(READY)
	PYTHONPATH=tests $(BIN)/python -m support.s3 s3-data

# Hashes and no addresses: the lock serves every package index.
lock: $(READY)
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra cpu --extra dev \
		--generate-hashes --no-header --no-annotate --no-emit-index-url \
		--output-file requirements.lock pyproject.toml

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "ironmask needs Python 3.11, 3.12 or 3.13 on the path" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check > $(VENV)/installed.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 0 \
		--only-binary :all: --constraint $(VENV)/installed.txt $(TORCH) 2>/dev/null \
		|| echo "no build of PyTorch for CPUs is at hand: tests of trained inverters are skipped"
	@touch $@

clean:
	rm -rf $(VENV) demo-out bench-out faults-out s3-data .pytest_cache .mypy_cache .ruff_cache .hypothesis
