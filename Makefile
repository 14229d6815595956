# What to run, and what CI runs. `make help` lists it.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The first Python from 3.11 to 3.13 that runs; choose another with `make PYTHON=...`.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$python && break; done)
PIP_INSTALL := install --quiet --disable-pip-version-check
SAM := .venv-sam/bin/sam
# statelint 3.1.0 does not know that JSONata may stand in Seconds, nor that 2 is a BackoffRate.
LITERAL_SECONDS := 's/"Seconds": "\{%[^"]*%\}"/"Seconds": 1/'
# What functions, jobs and endpoint install. The command's own requirements are not pinned down to the last.
SHIPPED := $(wildcard functions/*/requirements.txt) training_code/requirements.txt $(wildcard inference_code/*requirements*.txt)
LOCAL_CREDENTIALS := AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/.installed  ## the command in .venv, and the environments in which jobs and endpoints run
	.venv/bin/python -m localcloud.containers build pytorch ray \
		--requirements training_code/requirements.txt --requirements inference_code/requirements.txt

demo: install .venv/.demo  ## the whole run on handwritten digits, on a local cloud of its own
	.venv/bin/python -m kelpie.demo

test: install .venv/.dev .venv-sam/.installed  ## every test: unit, contract, job code in the images' environments, local cloud
	.venv/bin/python tests/run_all.py

browser:  ## Debian's Chromium for tests/browser, where there is none yet
	@command -v chromium chromium-browser google-chrome >/dev/null || { apt-get update --quiet && apt-get install --quiet --yes --no-install-recommends chromium; }

check: .venv/.dev .venv-sam/.installed .venv-images/.installed  ## format, lint, types, template and state machine
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	$(LOCAL_CREDENTIALS) .venv/bin/cfn-lint template.yaml
	$(LOCAL_CREDENTIALS) SAM_CLI_TELEMETRY=0 $(SAM) validate --lint --template template.yaml
	.venv/bin/python docs/write_tree.py --check
	.venv/bin/python docs/write_images.py .venv-images --check
	.venv/bin/statelint --ignore=FLOAT "$$(sed -E $(LITERAL_SECONDS) statemachine/train_and_deploy.asl.json)"

format: .venv/.dev  ## rewrite the code, and docs/tree.md, as `make check` wants them
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .
	.venv/bin/python docs/write_tree.py

screenshots: .venv/.dev  ## README.md's pictures, of what `make demo` has left
	.venv/bin/python docs/write_screenshots.py

images: .venv-images/.installed  ## rewrite the template's accounts of AWS's images from the SageMaker SDK's tables
	.venv/bin/python docs/write_images.py .venv-images

wheels: .venv/.installed  ## put what jobs without a network install into a stack's bucket: make wheels BUCKET=...
	@test -n "$(BUCKET)" || { echo "Name the stack's bucket: make wheels BUCKET=..." >&2; exit 1; }
	.venv/bin/python -m kelpie.wheels s3://$(BUCKET)/wheels/

audit: .venv-audit/.installed .venv-pip-audit/.installed  ## hold the template against published rules, what is shipped against advisories
	.venv-audit/bin/checkov --config-file .checkov.yaml
	.venv-pip-audit/bin/pip-audit --strict --disable-pip --no-deps $(SHIPPED:%=--requirement %)

clean:  ## remove what make has installed in this folder
	rm -rf .venv .venv-sam .venv-images .venv-audit .venv-pip-audit

.venv/bin/python:
	@case "$$(uname -s)" in Linux|Darwin) ;; *) echo "Kelpie runs on Linux and macOS, not on $$(uname -s)." >&2; exit 1 ;; esac
	@test -n "$(PYTHON)" || { echo "Kelpie needs Python 3.11, 3.12 or 3.13 on the PATH; found: $$(python3 --version 2>&1). Install one, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: requirements.txt pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip $(PIP_INSTALL) --requirement requirements.txt --editable .
	touch $@

.venv/.demo: requirements-demo.txt .venv/.installed
	.venv/bin/python -m pip $(PIP_INSTALL) --requirement requirements-demo.txt
	touch $@

.venv/.dev: requirements-dev.txt .venv/.demo
	.venv/bin/python -m pip $(PIP_INSTALL) --requirement requirements-dev.txt
	touch $@

.venv-sam/.installed: requirements-sam.txt .venv/.installed
	.venv/bin/python -m venv .venv-sam
	.venv-sam/bin/python -m pip $(PIP_INSTALL) --requirement requirements-sam.txt
	touch $@

.venv-images/.installed: requirements-sdk-v3.txt | .venv/bin/python
	.venv/bin/python -m pip $(PIP_INSTALL) --no-deps --upgrade --target .venv-images --requirement requirements-sdk-v3.txt
	touch $@

.venv-audit/.installed: requirements-audit.txt | .venv/bin/python
	.venv/bin/python -m venv .venv-audit
	.venv-audit/bin/python -m pip $(PIP_INSTALL) --requirement requirements-audit.txt
	touch $@

.venv-pip-audit/.installed: requirements-pip-audit.txt | .venv/bin/python
	.venv/bin/python -m venv .venv-pip-audit
	.venv-pip-audit/bin/python -m pip $(PIP_INSTALL) --requirement requirements-pip-audit.txt
	touch $@

.PHONY: help install demo test browser check format screenshots images wheels audit clean
