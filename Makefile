# Every target that needs the environment makes it first; a second run finds it ready in well under two seconds.
DEVICE ?=
PORT   ?= 8000
CONFIG ?= platform.yaml
SCENARIO ?= smoke
URL    ?= http://127.0.0.1:$(PORT)
GATE   ?=
MINUTES ?= 60
PYTHON ?= $(shell command -v python3 || command -v python3.12 || command -v python3.11 || echo python3)

BIN        := .venv/bin
SETUP      := $(PYTHON) -B scripts/setup_env.py $(if $(DEVICE),--device $(DEVICE))
SETUP_TEST := $(SETUP) --extra test
SETUP_DEV  := $(SETUP) --extra test --extra dev
TESTS      := $(BIN)/python -B scripts/run_tests.py
SOURCES    := scripts tests $(wildcard serve_app deployments autoscaling loadtests models benchmarks)

.DEFAULT_GOAL := help
.PHONY: help run install fmt lint type test test-ray test-e2e test-clients test-chaos test-soak chart-test chart clients cov check loadtest proto golden lock clean python

help: ## Show this table
	@printf 'Manta: multi-model LLM and RAG serving on Ray Serve and vLLM\n\n'
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@printf '\nVariables: DEVICE=%s  PORT=%s  CONFIG=%s  PYTHON=%s\n' '$(or $(DEVICE),cpu|gpu)' '$(PORT)' '$(CONFIG)' '$(PYTHON)'

run: python ## Set up, start the platform, ingest, ask three questions, serve until Ctrl-C
	@$(SETUP)
	@exec $(BIN)/manta run $(CONFIG) --port $(PORT) --demo

install: python ## Make .venv with everything for development
	@$(SETUP_DEV)

fmt: python ## Format the code and fix what ruff can fix
	@$(SETUP_DEV)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

lint: python ## ruff, formatting and the import rules
	@$(SETUP_DEV)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/lint-imports --no-logo

type: python ## mypy --strict
	@$(SETUP_DEV)
	$(BIN)/mypy

test: python ## Set up, then unit tests, real Ray, and the main job on real vLLM
	@$(SETUP_TEST)
	@$(TESTS) unit integration main-job

test-ray: python ## Only the tests on real Ray
	@$(SETUP_TEST)
	@$(TESTS) integration

test-e2e: python ## Every slow test, and every end-to-end test on real vLLM
	@$(SETUP_TEST)
	@$(BIN)/python -B -m scripts.client_env
	@$(TESTS) slow e2e matrix

test-clients: python ## Other people's clients, unmodified, and REST against gRPC, on real vLLM
	@$(SETUP_TEST)
	@$(BIN)/python -B -m scripts.client_env
	@$(TESTS) matrix

test-chaos: python ## Parts that are killed, frozen, cut off or lie, under load, on three Ray nodes (Linux, root, redis-server)
	@$(SETUP_TEST)
	@$(TESTS) chaos

test-soak: python ## Load for MINUTES (60) with a random fault every minute: nothing leaks (Linux, root, redis-server)
	@$(SETUP_TEST)
	@MANTA_SOAK_MINUTES=$(MINUTES) $(TESTS) soak

chart-test: python ## The Helm chart under the real Helm engine, without a cluster
	@$(SETUP_TEST)
	@$(TESTS) chart

chart: python ## Write the chart's schema, its README, its dashboards and the pages made from it
	@$(SETUP_TEST)
	$(BIN)/python -B -m scripts.chart_schema
	$(BIN)/python -B -m scripts.chart_docs
	$(BIN)/python -B -m scripts.values_errors
	$(BIN)/python -B -m scripts.chart_upgrades
	$(BIN)/python -B -m scripts.dashboards

clients: python ## Make .clients, with the clients that cannot live in .venv
	@$(SETUP_TEST)
	@$(BIN)/python -B -m scripts.client_env

cov: python ## Unit and Ray tests with branch coverage
	@$(SETUP_TEST)
	@rm -f .coverage
	@$(TESTS) unit integration --cov --cov-append --cov-report=
	@$(BIN)/coverage report

check: lint type test chart-test ## What CI runs: lint, type, test and chart-test

loadtest: python ## Load a running platform: SCENARIO=smoke, URL, GATE
	@$(SETUP) --extra loadtest
	@$(BIN)/manta loadtest $(SCENARIO) --url $(URL) $(if $(GATE),--gate $(GATE)) --report loadtest.html --json loadtest.json

proto: python ## Generate the gRPC modules from the .proto files
	@$(SETUP_DEV)
	$(BIN)/python -B -m scripts.protos

golden: python ## Rewrite the golden files of the tests (review the diff)
	@$(SETUP_TEST)
	MANTA_REWRITE_GOLDEN=1 $(BIN)/python -m pytest -q tests/unit tests/chart/test_render.py

lock: python ## Write constraints/cpu.txt anew from a fresh .venv with the newest allowed versions
	rm -rf .venv constraints/cpu.txt
	@$(PYTHON) -B scripts/setup_env.py --device cpu --extra test --extra dev
	@$(BIN)/python -B scripts/lock.py constraints/cpu.txt

clean: ## Remove .venv, caches and builds; ingested data and models stay
	rm -rf .venv .venv.lock .clients build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage htmlcov

python:
	@command -v $(PYTHON) >/dev/null || { echo "set-up: no $(PYTHON) on this machine: install Python 3.11 or 3.12 (Debian, Ubuntu: sudo apt-get install python3.12-venv) or name one: make $(or $(firstword $(MAKECMDGOALS)),run) PYTHON=/path/to/python3.12" >&2; exit 1; }
