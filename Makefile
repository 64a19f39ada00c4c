# make help says what there is. Everything runs in .venv, which the first call sets up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
# Shards, checkpoints and the MLflow store of the demonstration stay inside this folder.
export RESNET_HOME ?= $(CURDIR)/runs
ARGS ?=

.PHONY: help setup train sweep serve test test-slow test-cluster check audit docs bench-peers bench-ingest bench-serve requirements clean
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  ARGS='...' goes to the job: make train ARGS='imagenet-resnet18 --data.path SHARDS'"

setup: .venv/.ready ## set up .venv (pinned and hashed; the other commands do it themselves)
.venv/.ready: requirements.txt pyproject.toml deploy/setup.sh
	@bash deploy/setup.sh

train: setup ## ray job submit jobs/train_imagenet.py: the whole way on embedded images, about two minutes
	@$(PY) -m pipelines.cluster -- python jobs/train_imagenet.py $(ARGS)

sweep: setup ## the networks of Table 6 up to 56 layers, two epochs each, as a Ray Tune sweep
	@$(PY) -m pipelines.cluster -- python jobs/sweep_paper.py table6 --seeds 0 --recipe.epochs 2 $(ARGS)

serve: setup ## the best model behind an HTTP endpoint on http://127.0.0.1:8000, until Ctrl-C
	@$(PY) jobs/deploy_best.py $(ARGS)

test: setup ## the tests but for the slow ones, a quarter of an hour
	@$(PY) -m pytest -m "not slow and not cluster" $(ARGS)

test-slow: setup ## the tests of whole jobs, kills and resumes that take longer; CI runs both
	@$(PY) -m pytest -m slow $(ARGS)

test-cluster: setup ## trainings on several hosts (network namespaces) and what happens to hosts; root, half an hour
	@$(PY) -m pytest -m cluster tests/cluster $(ARGS)

check: setup ## lint, format and types
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m basedpyright

audit: setup ## look the pinned packages up among known vulnerabilities; says what could not be looked up
	@$(PY) deploy/audit.py

docs: setup ## the documentation as a site, runs/site/index.html; warnings are errors
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict && echo runs/site/index.html

# The peers pin each other's packages otherwise than we do, hence a virtual environment of their own. FFCV is compiled,
# with OpenCV and libjpeg-turbo (Debian: libopencv-dev libturbojpeg0-dev pkg-config); without them it is left out.
bench-peers: setup ## what benchmarks/data/ingest.py and serve.py compare with, into .venv-peers
	@[ -x .venv-peers/bin/python ] || .venv/bin/uv venv --quiet --python $(PY) .venv-peers
	@.venv/bin/uv pip install --quiet --compile-bytecode --python .venv-peers/bin/python -r benchmarks/data/peers.txt \
	  -r benchmarks/serving/serve_peers.txt
	@.venv/bin/uv pip install --quiet --python .venv-peers/bin/python -r benchmarks/data/peers.txt ffcv==1.0.2 2>.venv-peers/ffcv.log \
	  || echo "bench-peers: FFCV was not built and is left out (log: .venv-peers/ffcv.log)" >&2

bench-ingest: setup ## decode and crop full-size ImageNet images: every peer's loader and ours, about 20 minutes
	@$(PY) benchmarks/data/ingest.py $(ARGS)

bench-serve: setup ## the endpoint against the bare model, FastAPI and LitServe, about 12 minutes
	@$(PY) benchmarks/serving/serve.py $(ARGS)

requirements: setup ## pin requirements.txt and requirements-run.txt anew from pyproject.toml, for Linux and macOS
	@.venv/bin/uv pip compile --quiet --upgrade --universal --generate-hashes --python-version 3.11 --extra dev \
	  --custom-compile-command "make requirements" --output-file requirements.txt pyproject.toml
	@.venv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra s3 --extra uses --extra dicom \
	  --constraint requirements.txt --custom-compile-command "make requirements" --output-file requirements-run.txt pyproject.toml

clean: ## remove .venv and caches; keeps runs/
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
