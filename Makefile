# make run   page, REST and feed with the built-in engine (or your ComfyUI)      make test   everything but browser and live tests
# make lab   the notebooks                                                       make check  ruff, mypy, import rules
# make bench the figures that issues name, as ratios                             Without make: see README.md

PYTHON ?= python3
UV = 0.13.9
BIN = .venv/bin
WORKERS = -n 4 --dist worksteal   # tests wait more than they compute
PROMISES = toolkit/jobs.py,toolkit/ledger/*,toolkit/protocol/*,toolkit/reconcile.py   # what nothing lost and nothing doubled rests on
STAMP = .venv/.installed
unexport PYTHONDONTWRITEBYTECODE   # as images of containers set it: hundreds of processes would each compile the toolkit again

.PHONY: run test again soak lab notebooks bench check browser clean

run: $(STAMP)
	$(BIN)/python app.py

test: $(STAMP) check
	$(BIN)/python -m pytest $(WORKERS) -m "not live and not browser" --cov --cov-report=term:skip-covered --cov-fail-under=93 $(ARGS)
	$(BIN)/python -m coverage report --include=$(PROMISES) --fail-under=100 --format=total

# what failed last time, alone: on a busy machine a test of timing may fail once
again: $(STAMP)
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures=none $(ARGS)

# 10,000 histories, a day of 5,000 jobs, each crash point 50 times: an hour or two
soak: $(STAMP)
	TOOLKIT_HISTORIES=10000 TOOLKIT_SOAK_JOBS=5000 TOOLKIT_CRASH_REPEATS=50 TOOLKIT_SCHEMA_EXAMPLES=100 \
		$(BIN)/python -m pytest $(WORKERS) -rP tests/faults/test_histories.py tests/faults/test_crashes.py tests/test_schemas.py $(ARGS)

browser: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m browser $(ARGS)

lab: $(STAMP)
	$(BIN)/python -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

# execute and save them, on an engine and in a home of their own
notebooks: $(STAMP)
	home=$$(mktemp -d) && TOOLKIT_HOME=$$home TOOLKIT_FEEDER_IDLE_S=1 TOOLKIT_ENGINE_IDLE_S=1 $(BIN)/python -m nbconvert --to notebook \
		--execute --inplace --ExecutePreprocessor.store_widget_state=False notebooks/*.ipynb; code=$$?; sleep 5; rm -rf $$home; exit $$code

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet app.py toolkit tests
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# uv installs in seconds; plain pip does the same from the same hashes where uv cannot reach its index
$(STAMP): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	UV_COMPILE_BYTECODE=1 $(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --require-hashes -r requirements.lock \
		|| $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage*
