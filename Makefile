# The two commands: `make train` runs the main job, `make test` passes the tests.
VENV := .venv
PYTHON ?= python3
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
STAMP := $(VENV)/.locked
# Without compiled modules each command would compile thousands of them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: train test test-hypervisors lint bench setup lock

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml packages/dvc-smb/pyproject.toml packages/dvc-smb/dvc_smb.pth
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) -V 2>&1): Python 3.11, 3.12 or 3.13 is needed; name one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "error: $(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.13,<0.14"
	$(BIN)/uv pip sync --system-certs --python $(BIN)/python --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --system-certs --python $(BIN)/python --no-deps --no-build-isolation \
	  --editable . --editable packages/dvc-smb
	@touch $@

# The main job. CONFIG=configs/... trains by another recipe; SHARE=smb://user@host/share/folder or a folder is where
# data and results are shared, from now on (asks for the password once, or takes MLOPS_SHARE_PASSWORD).
CONFIG ?= configs/forklift.yaml
train: $(STAMP)
	@mlops up $(if $(SHARE),--share '$(SHARE)')
	@mlops train $(CONFIG)

# Tests of one file share servers, so a file is never split; most of them wait for servers more than they compute.
TEST_PROCESSES ?= 2
test: $(STAMP)
	@python -m pytest -n $(TEST_PROCESSES) --dist loadfile

# The drivers of VMs on VirtualBox 7 and libvirt themselves, and a share between two whole Debian systems: as root, on
# Debian; what is downloaded is kept in ~/.cache/kubernetes-mlops. Guests are emulated: it takes a quarter of an hour.
test-hypervisors: $(STAMP)
	@python -m pytest -m hypervisor -n $(TEST_PROCESSES) --dist loadfile tests/machines

bench: $(STAMP)
	@python -m benchmarks

# Says of each package who needs it: the image leaves out by that what only tests and checks need.
lock: $(STAMP)
	uv pip compile --quiet --system-certs --universal --generate-hashes --python-version 3.11 --all-extras \
	  --no-emit-package dvc-smb pyproject.toml --output-file requirements.lock

lint: $(STAMP)
	ruff check .
	ruff format --check .
	mypy
