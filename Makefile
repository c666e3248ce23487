# Two commands matter: `make demo` and `make test`. Both set up all they need from nothing.

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
# The demonstration needs little; the environment of the tests, where there is one, has it all.
DEMO := .venv-demo
DEMO_PORT ?= 8080
# Most tests wait for processes most of the time: more of them than cores.
JOBS ?= 4

REVISION ?= $(shell git rev-parse HEAD 2>/dev/null)

.PHONY: help demo test test-kubernetes image check format bench pictures simulate fuzz faults docs clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

$(VENV)/ready: pyproject.toml tests/setup
	tests/setup python $(VENV) $(PYTHON)
	@echo "installing what the tests need into $(VENV): about 500 MB, once"
	$(BIN)/pip install --disable-pip-version-check --config-settings editable_mode=compat --editable '.[test,servers,check]'
	@touch $@

$(DEMO)/ready: pyproject.toml tests/setup
	tests/setup python $(DEMO) $(PYTHON)
	@echo "installing sidecar and gunicorn into $(DEMO): about 30 MB, once"
	$(DEMO)/bin/pip install --disable-pip-version-check --editable . 'gunicorn>=25.1'
	@touch $@

demo: $(if $(wildcard $(VENV)/ready),$(VENV),$(DEMO))/ready ## serve the example on port 8080 and say what to try
	@BIN=$(<D)/bin PORT=$(DEMO_PORT) examples/demo

test: $(VENV)/ready ## set up everything and run the tests
	tests/setup system
	$(MAKE) --no-print-directory check
	@# The tests start sidecar a few thousand times, each a third as long if it need not be compiled.
	$(BIN)/python -m compileall -q sidecar tests
	$(BIN)/pytest -n $(JOBS) --dist loadgroup

test-kubernetes: $(VENV)/ready ## a pod's life in the cluster of KUBECONFIG (SIDECAR_KUBE_IMAGE=...)
	SIDECAR_KUBE=1 $(BIN)/pytest tests/kubernetes

check: $(VENV)/ready ## style, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.settings --check
	$(BIN)/python -m docs.tree --check

format: $(VENV)/ready ## mend what can be mended
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

docs: $(VENV)/ready ## write docs/settings.md and the tree in how-it-works.md anew
	$(BIN)/python -m docs.settings
	$(BIN)/python -m docs.tree

image: ## build the image, with its version and revision in the labels
	docker build --target sidecar --build-arg REVISION=$(REVISION) -t sidecar .

pictures: $(VENV)/ready ## take the pictures of docs/admin.md anew
	tests/setup system
	mkdir -p docs/images
	SIDECAR_PICTURES=docs/images $(BIN)/pytest -q tests/browser -k by_itself

bench: $(VENV)/ready ## the figures, beside Debian's start_server
	tests/setup system
	$(BIN)/python -m bench

simulate: $(VENV)/ready ## hundreds of thousands of schedules through the core
	SIDECAR_SCHEDULES=$${SIDECAR_SCHEDULES:-500000} $(BIN)/pytest tests/promises --timeout=0

fuzz: $(VENV)/ready ## many more examples of what may come from outside
	SIDECAR_EXAMPLES=$${SIDECAR_EXAMPLES:-20000} $(BIN)/pytest tests/fuzz --timeout=0

faults: $(VENV)/ready ## system calls of sidecar that fail, once or always (FAULTS=400, 0: all; SEED=1)
	tests/setup system
	$(BIN)/python -m tests.faults --jobs $(JOBS) --cases $${FAULTS:-400} --seed $${SEED:-1}

clean: ## remove what the targets made
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
