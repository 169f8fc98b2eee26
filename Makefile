# make demo   the whole of Chorister on a corpus that it speaks itself
# make test   format, lint, types, imports and every test
# make check  the quick part of that, for work in progress
#
# CPU=1 takes PyTorch from its CPU index (a smaller download on machines without a GPU).

PYTHON ?= python3
VENV ?= .venv
CPU ?= 0
BIN := $(VENV)/bin
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export OMP_NUM_THREADS ?= 2
# Tests: so many processes of one thread each.
WORKERS ?= 2

ifeq ($(CPU),1)
TORCH_INDEX := --extra-index-url https://download.pytorch.org/whl/cpu
endif

TIMED = start=$$(date +%s); $(1) && echo "-- $(2): $$(( $$(date +%s) - start )) s"

.PHONY: demo test slow check format clean install-demo install-dev licences

demo: install-demo
	rm -rf demo
	$(BIN)/chorister simulate demo --out demo
	@echo
	@echo "Open demo/report.html. Your own words in a demo voice: $(BIN)/chorister try ME.wav"

test: check
	@$(call TIMED,OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow",tests)

slow: install-dev
	@$(call TIMED,$(BIN)/python -m pytest -q -m slow,slow tests)

check: install-dev
	@$(call TIMED,$(BIN)/ruff format --check .,format)
	@$(call TIMED,$(BIN)/ruff check .,lint)
	@$(call TIMED,$(BIN)/mypy,types)
	@$(call TIMED,$(BIN)/lint-imports,imports)
	@$(call TIMED,$(BIN)/python -m pytest -q tests/architecture,architecture tests)

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

licences: install-dev
	$(BIN)/python -m chorister.simulations.licences > docs/licences.md

install-demo: $(VENV)/.installed-all
install-dev: $(VENV)/.installed-dev

$(VENV)/.installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@$(call TIMED,$(BIN)/python -m pip install --quiet $(TORCH_INDEX) -e ".[$*]",install)
	touch $@

clean:
	rm -rf $(VENV) demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
