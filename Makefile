# Everything a developer types. Each target makes .venv by itself; stamps make running again quick.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TORCH := torch==2.13.0
DEMO_OUT ?= runs/demo

.PHONY: help install demo test test-slow sanitize lint format clean

help:
	@echo "make demo       prune a small network to half its latency and prove it (minutes)"
	@echo "make test       all quick tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make sanitize   the kernels' tests under AddressSanitizer and UBSan"
	@echo "make lint       ruff and mypy"
	@echo "make format     let ruff rewrite the sources"
	@echo "make clean      remove what make made, the environment too"

# torch comes first and exactly pinned, so that no later requirement picks another build of it.
$(INSTALLED): setup.cfg setup.py pyproject.toml $(wildcard edgeprune/kernels/native/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

install: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/edgeprune compress --task digits --device x86 --target-speedup 2x --recipe quick --out $(DEMO_OUT)
	$(BIN)/edgeprune report $(DEMO_OUT)

test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow --timeout 3600

# Python itself is not built with the sanitizers, so their runtime is loaded before it; and it never
# frees all it allocates.
SANITIZED := build/sanitized
sanitize: $(INSTALLED)
	$(BIN)/python tools/build_sanitized.py $(SANITIZED)
	EDGEPRUNE_KERNELS=$(SANITIZED) ASAN_OPTIONS=detect_leaks=0 \
	LD_PRELOAD="$$($${CXX:-g++} -print-file-name=libasan.so) $$($${CXX:-g++} -print-file-name=libubsan.so)" \
	$(BIN)/python -m pytest tests/kernels/test_products.py tests/kernels/test_packing.py tests/kernels/test_convolutions.py

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
