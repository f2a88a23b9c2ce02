# make demo | test | test-faults | lint | bench | bench-gpu | environment | setup | clean-demo
# VENV=DIR uses another virtual environment than .venv; PYTHON=python3.12 creates it with another Python.
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python
PIP = $(RUN) -m pip --disable-pip-version-check
# Written after everything is installed, so an interrupted installation is continued by the next make.
READY = $(VENV)/.mcja-ready

.PHONY: environment setup demo test test-faults lint bench bench-gpu clean-demo

environment: $(READY)

$(READY): requirements.txt requirements-dev.txt tools/install_torchsort.sh
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed; set PYTHON')"
	@test -e $(RUN) || $(PYTHON) -m venv $(VENV)
	@$(PIP) --version >/dev/null 2>&1 || $(RUN) -m ensurepip
	@echo "Installing requirements-dev.txt into $(VENV) (the first time takes some minutes)"
	@$(PIP) install --quiet -r requirements-dev.txt
	@sh tools/install_torchsort.sh $(VENV)
	@touch $@

# Install again, for example after a compiler has been installed.
setup:
	@rm -f $(READY)
	@$(MAKE) --no-print-directory environment

demo: $(READY)
	@$(RUN) -m tools.demo

test: $(READY)
	$(RUN) -m pytest --durations=10 --durations-min=1

test-faults: $(READY)
	$(RUN) -m pytest -m faults

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(READY)
	$(RUN) -m benchmarks.scoring --repeats 1
	$(RUN) -m benchmarks.data
	$(RUN) -m benchmarks.extraction --repeats 1 backbone resnet18 num_workers 0
	$(RUN) -m benchmarks.step --repeats 1 --steps 2 backbone resnet18 p_size 2 k_size 4 batch_size 16

bench-gpu: $(READY)
	mkdir -p bench
	$(RUN) -m pytest -m gpu tests/engine/test_gpu.py
	$(RUN) -m benchmarks.scoring --gpu 0 --json bench/scoring.json
	$(RUN) -m benchmarks.data --gpu 0 --json bench/data.json
	$(RUN) -m benchmarks.extraction --gpu 0 --images 2048 --json bench/extraction.json
	$(RUN) -m benchmarks.step --gpu 0 --json bench/step.json
	$(RUN) -m benchmarks.step --gpu 0 --json bench/step-compiled.json compile true

clean-demo:
	rm -rf demo
