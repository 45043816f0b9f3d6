.DEFAULT_GOAL := help
.PHONY: bench check clean demo docs fix help image image-reproducible lock setup soak test test-appliance test-deploys test-image test-integration test-py313
SHELL := /bin/bash
PYTHON := .venv/bin/python
# The plugin of Home Assistant's test tools closes the network; only the integration's own tests want that.
PYTEST := $(PYTHON) -m pytest
# Real counterparts of the tests.
TEST_PACKAGES := binutils busybox dbus gpg gpgv iproute2 mosquitto openssh-client openssh-server openssl polkitd prometheus \
  prometheus-node-exporter restic tcpdump

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install all that the others need (they do it themselves)
	@scripts/setup

demo: setup ## Start the whole house with a real Home Assistant; ONCE=1 ends after the two answers
	@$(PYTHON) -m scripts.demo $(if $(filter-out 0,$(ONCE)),--once)

test: setup check test-appliance test-deploys test-integration ## Run the checks and every test

check: setup ## Lint, type-check and hold the import rules
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

fix: setup ## Mend what ruff can mend
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

test-appliance: setup ## Test the appliance, up to the whole house end to end
	@scripts/packages $(TEST_PACKAGES)
	$(PYTEST) -p no:homeassistant tests/unit tests/contract tests/system tests/faults tests/e2e

test-deploys: setup ## Deploy to real root file systems and running machines in namespaces; needs root
	@scripts/packages debian-archive-keyring iproute2 mmdebstrap openssh-client openssl
	$(PYTEST) -p no:homeassistant tests/deploys

test-integration: setup ## Test the Home Assistant integration
	$(PYTEST) tests/integration

test-py313: ## Test the appliance on Python 3.13, without Home Assistant
	@scripts/setup 3.13
	@scripts/packages $(TEST_PACKAGES)
	.venv-3.13/bin/python -m pytest tests/unit tests/contract tests/system tests/faults

bench: setup ## Measure what is promised next to llama.cpp's servers; ONLY=throughput is one part; writes build/bench
	@ROUSE_LLAMA_SERVER=$$(scripts/llama-server || echo "llama-server can't be had: going on without it" >&2) \
	  $(PYTHON) -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

soak: setup ## Full load on an expert and a gateway for MINUTES=10; fails when memory grows or a request hangs
	$(PYTHON) -m tests.benchmarks.soak --minutes $(or $(MINUTES),10)

docs: setup ## Write the references that are made from the code
	$(PYTHON) -m appliance.bus.asyncapi --write docs/asyncapi.yaml
	$(PYTHON) -m appliance.settings.reference --write docs/configuration.md
	$(PYTHON) -m scripts.metrics_reference --write docs/metrics.md

image: setup ## Build the appliance image into build/image/out; MODELS=folder puts models on it
	@scripts/packages bubblewrap debian-archive-keyring mmdebstrap
	$(PYTHON) -m appliance image build $(if $(MODELS),--models $(MODELS))

image-reproducible: setup ## Build the image twice from nothing and compare; WHEELS=1 compiles llama.cpp twice too
	@scripts/packages bubblewrap debian-archive-keyring mmdebstrap
	$(PYTHON) -m image_build.reproducible $(if $(filter-out 0,$(WHEELS)),--wheels)

test-image: setup ## Boot the image that `make image` built in virtual machines, and test it
	$(PYTEST) -p no:homeassistant tests/image --timeout 3600

lock: setup ## Lock the dependencies; UPGRADE=1 takes the newest
	scripts/lock $(if $(UPGRADE),--upgrade)

clean: ## Remove what was made, but not the caches outside
	rm -rf build .venv .venv-3.13 .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
