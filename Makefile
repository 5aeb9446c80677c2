# Needs make and a Python from 3.11 to 3.13, and nothing else: the first target that needs packages makes the virtual
# environment and installs them from the locks in requirements/. Later calls install nothing until a lock or
# pyproject.toml changes.
#
#   make study ARGS="reviews.csv --text review --label sentiment"
#   make test PYTHON=/opt/python3.12/bin/python3.12

VENV ?= .venv
UV ?= uv
# Backends that are tested at a time. Sharing one backend's tests among processes costs more than it gains: each
# process compiles for itself.
JOBS ?= 2
ARGS ?=

BIN := $(VENV)/bin
STUDY := $(VENV)/.study-installed
TEST := $(VENV)/.test-installed
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_USER=0 $(BIN)/python -m pip install --quiet --no-compile
# All processors compile what pip would compile with one. What packages have for other versions of Python cannot be compiled.
PRECOMPILED := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
# The locks are complete, so nothing may be added to them (--no-deps), and nothing is built from source on the way.
LOCKED := $(PIP) --no-deps --only-binary=:all: --require-hashes -r
ITSELF := $(PIP) --no-deps --no-build-isolation --editable .
PYTEST := $(BIN)/python -m pytest --durations=30 --durations-min=0.5
CHECK := KERAS_BACKEND=jax $(PYTEST) -q -m "backend_free and not browser and not subprocess"
SECOND := tests/data
# Each backend's output in one piece, where this make can do so (macOS has one from 2006 that cannot).
IN_ONE_PIECE := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
COMPILE := $(UV) pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes --quiet \
  --custom-compile-command "make lock" pyproject.toml requirements/build.in --extra jax --extra study --extra serve

.DELETE_ON_ERROR:
.PHONY: help study check check-tests check-second-tests test test-all mutations lint format types test-jax test-tensorflow test-torch test-backend-free test-doctests docs pictures bench bench-longest results lock clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-24s%s\n", $$1, $$2 }'

study: $(STUDY) ## train with and without attention, compare, write a report (ARGS are passed on)
	@KERAS_BACKEND=jax $(BIN)/limelight study $(ARGS)

check: $(TEST) ## before each commit, under a minute: lint, types, architecture, and the tests without a backend
	@$(MAKE) --no-print-directory --keep-going -j $(JOBS) $(IN_ONE_PIECE) check-tests lint types check-second-tests

# In two parts, so that no processor is idle after the types.
check-tests: $(TEST)
	$(CHECK) tests $(SECOND:%=--ignore=%)

check-second-tests: $(TEST)
	$(CHECK) $(SECOND)

test: lint ## what CI runs: lint, types, tests on the three backends, docs
	@echo "Testing on JAX, TensorFlow and PyTorch, $(JOBS) jobs at a time. Each is shown when it ends."
	@$(MAKE) --no-print-directory --keep-going -j $(JOBS) $(IN_ONE_PIECE) \
	  test-jax test-torch test-tensorflow test-backend-free types test-doctests docs

test-all: ## every test on every backend
	@LIMELIGHT_TESTS=all $(MAKE) --no-print-directory test

mutations: $(TEST) ## plant twelve faults, one at a time, and see that the tests catch each
	$(BIN)/python tests/mutations/run.py $(ARGS)

lint: $(TEST) ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TEST) ## mend style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(TEST) ## check types
	$(BIN)/pyright --pythonpath $(BIN)/python

test-jax: $(TEST) ## the tests on JAX
	KERAS_BACKEND=jax $(PYTEST) -m "not backend_free" tests

test-tensorflow: $(TEST) ## the tests on TensorFlow
	KERAS_BACKEND=tensorflow $(PYTEST) tests

test-torch: $(TEST) ## the tests on PyTorch
	KERAS_BACKEND=torch $(PYTEST) tests

# The command line trains in some of them, soonest on PyTorch.
test-backend-free: $(TEST) ## the tests that need no backend: data, statistics, pages, the command line
	KERAS_BACKEND=torch $(PYTEST) -m backend_free tests

# On PyTorch, which compiles nothing, with one thread as in tests/conftest.py. Its tensors predate numpy 2's `copy` argument.
test-doctests: $(TEST) ## the examples in docstrings
	KERAS_BACKEND=torch OMP_NUM_THREADS=1 $(PYTEST) -W "ignore:__array__ implementation:DeprecationWarning" --doctest-modules \
	  --ignore-glob='*/engine/tensorflow/*' src

docs: $(TEST) ## build the documentation into build/site; nothing on its pages is loaded from elsewhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

pictures: $(TEST) ## draw the documentation's pictures anew
	KERAS_BACKEND=jax $(BIN)/python docs/draw.py $(ARGS)

bench: $(TEST) ## measure limelight beside its peers (ARGS="--only jax full --repeats 9", ARGS=--quick)
	$(BIN)/python benchmarks/run.py $(ARGS)

results: $(TEST) ## train the estimators on named data sets, and write docs/results.md (ARGS="--only gun-point")
	KERAS_BACKEND=jax $(BIN)/python benchmarks/quality.py $(ARGS)

bench-longest: $(TEST) ## the longest input that a given memory holds (ARGS="--memory 4")
	$(BIN)/python benchmarks/longest.py $(ARGS)

lock: ## resolve the locks anew, with uv (ARGS=--upgrade for the newest versions)
	@command -v $(UV) > /dev/null || { echo "make lock needs uv. Run: pip install uv" >&2; exit 1; }
	$(COMPILE) $(ARGS) requirements/test.in --extra tensorflow --group dev \
	  --override requirements/left-out.txt --no-emit-package torch --output-file requirements/test.txt
	$(COMPILE) $(ARGS) --constraint requirements/test.txt --output-file requirements/study.txt

clean: ## remove what builds and test runs leave
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find src tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	rm -rf $(VENV)

$(STUDY): requirements/study.txt pyproject.toml | $(VENV)/.created
	@echo "Installing JAX and what a study needs into $(VENV) (once, about 1 GB) ..."
	@$(LOCKED) requirements/study.txt
	@$(ITSELF)
	@$(PRECOMPILED)
	@touch $@

# A superset of the study's lock at the same versions: whoever can test can study.
$(TEST): requirements/test.txt requirements/torch.txt pyproject.toml | $(VENV)/.created
	@echo "Installing three backends and the tools into $(VENV) (once, about 4 GB) ..."
	@$(LOCKED) requirements/test.txt
	@$(PIP) -r requirements/torch.txt
	@$(ITSELF)
	@$(PRECOMPILED)
	@touch $(STUDY) $@

$(VENV)/.created:
	@PYTHON='$(PYTHON)' sh requirements/create-venv.sh $(VENV)
	@touch $@
