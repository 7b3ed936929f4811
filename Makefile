# The two commands are `make run` and `make test`; `make help` lists the rest.

VENV ?= .venv
CONFIG ?= configurations/local.yaml
# The first Python that fits; name another with PYTHON=...
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$python; break; }; done)
BIN := $(VENV)/bin
SERVICES = $(or $(PYTHON),python3) -m dev.servers
# Python 3.12 and later count lines at nearly no cost; 3.11 traces them.
COVER = COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
	$(BIN)/python -m pytest --cov --cov-report=
# The command for a model of yours: make run MODEL=flowers.keras
SERVE = $(if $(MODEL),serve "$(MODEL)" $(if $(LABELS),--labels "$(LABELS)"))
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check
# Environments of clients that do not resolve with the service
V2_CLIENTS = $(patsubst tests/clients/%.txt,build/v2-clients/%/.installed,$(wildcard tests/clients/*.txt))

.DEFAULT_GOAL := help
.PHONY: help run flower test test-fast fuzz audit lint format openapi docs wheel client-wheel services services-stop services-status bench bench-peers fairness autoscaling overload clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

run: $(VENV)/.installed ## install missing packages, start the service and classify a photo (MODEL=FILE LABELS=FILE, CONFIG=FILE, ARGS="--port N")
	@set -a; test ! -f build/services.env || . ./build/services.env; exec $(BIN)/python server.py $(SERVE) --config $(CONFIG) $(ARGS)

flower: $(VENV)/.installed ## watch the service's tasks on http://127.0.0.1:5555 (FLOWER_BASIC_AUTH=NAME:PASSWORD make flower)
	@INFERENCE_CONFIG=$(CONFIG) exec $(BIN)/celery -A tasks flower $(ARGS)

# Tests that start processes wait for these more than they compute, so that two files of them run side by side; a file's tests
# run one at a time, since they share its service. Tests that measure rates run alone.
test: $(VENV)/.installed-dev $(V2_CLIENTS) ## install what is missing, start the real servers, and run every test (ARGS="tests/e2e -k batch" for some)
ifeq ($(ARGS),)
	$(COVER) -m 'not process and not services' -n logical --maxprocesses 4
	$(COVER) --cov-append -m '(process or services) and not alone' -n 2 --dist loadfile
	$(COVER) --cov-append -m alone
	@$(BIN)/coverage report | sed -n '1,17p;/^TOTAL/p' # the files that are covered least, and the total
else
	$(BIN)/python -m pytest $(ARGS)
endif

test-fast: $(VENV)/.installed-dev ## the tests that start no process of the service
	$(BIN)/python -m pytest -m 'not process and not services' -n 4 tests/unit tests/contract $(ARGS)

fuzz: $(VENV)/.installed-dev ## random requests, images, messages and records: other ones for each SEED=N, BUDGET=N times as many
	FUZZ_SEED=$(or $(SEED),0) FUZZ_BUDGET=$(or $(BUDGET),10) $(BIN)/python -m pytest -m fuzz -q $(ARGS)

# In an environment of its own, since pip-audit brings many packages. No gate: a report is to be read, and the index may be down.
audit: build/audit/.installed ## known weaknesses of the pinned packages (pip-audit; needs the network, and is no gate)
	@build/audit/bin/pip-audit --progress-spinner off --disable-pip --no-deps --requirement constraints.txt \
		|| echo "audit: weaknesses are listed above; or, if there is no list, the index of weaknesses cannot be reached"

lint: $(VENV)/.installed-dev ## ruff, mypy, and hadolint for the Dockerfiles
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 -p rohe_inference # the client runs on an older Python than the service
	$(BIN)/hadolint Dockerfile deploy/docker/minio.Dockerfile

format: $(VENV)/.installed-dev ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

openapi: $(VENV)/.installed ## write the description of the API, docs/openapi.json, from the code
	$(BIN)/python -m api.openapi > docs/openapi.json.new
	mv docs/openapi.json.new docs/openapi.json

docs: $(VENV)/.installed-dev ## build the documentation as a web site, in dist/site/; no page needs another host (ARGS="--to FOLDER")
	$(BIN)/python -m dev.docs_site $(ARGS)

wheel: $(VENV)/.installed-dev ## build the wheel, in dist/: the service for machines without a clone
	$(BIN)/python -m build --wheel --outdir dist .

client-wheel: $(VENV)/.installed-dev ## build the wheel of the Python client, in dist/client/
	$(BIN)/python -m build --wheel --outdir dist/client client

services: ## start the real Redis, MinIO, VersityGW, Kafka, MongoDB-protocol server and RabbitMQ; addresses in build/services.env
	@$(SERVICES) start $(ARGS)

services-stop: ## stop these servers, keep their data
	@$(SERVICES) stop $(ARGS)

services-status: ## show which of these servers are up
	@$(SERVICES) status $(ARGS)

bench: $(VENV)/.installed-dev ## compare the service with the model alone and the simplest design, on real servers too (ARGS=--quick)
	@$(SERVICES) start
	$(BIN)/python -m bench $(ARGS)

bench-peers: $(VENV)/.installed-dev ## the same, and with LitServe, BentoML, MLServer, Ray Serve and Mosec (ARGS="--only embedded mosec")
	@$(SERVICES) start
	$(BIN)/python -m bench --peers $(ARGS)

fairness: $(VENV)/.installed-dev ## latency of one owner alone, and while another floods the service (ARGS="--rounds 1")
	$(BIN)/python -m bench.fairness $(ARGS)

autoscaling: $(VENV)/.installed-dev ## start and stop workers by KEDA's rule on a recorded load, and compare with a fixed number (ARGS="--redis URL")
	$(BIN)/python -m bench.autoscaling $(ARGS)

overload: $(VENV)/.installed-dev ## send more requests than it can do; accepted ones meet their deadlines (ARGS=--quick)
	PYTHONPATH=.:tests $(BIN)/python -m faults.overload $(ARGS)

clean: ## remove all that these targets created, the service's data too
	@test ! -d build/services || $(SERVICES) stop
	rm -rf $(VENV) build data dist .coverage .schemathesis .pytest_cache .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed; name one with make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python requirements.txt requirements-base.txt constraints.txt
	$(PIP_INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	$(PIP_INSTALL) -r requirements-dev.txt
	@touch $@

build/audit/.installed: $(VENV)/bin/python
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet pip-audit==2.10.1
	@touch $@

build/v2-clients/%/.installed: tests/clients/%.txt $(VENV)/bin/python
	rm -rf $(@D)
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet --no-deps --no-compile -r $<
	@touch $@
