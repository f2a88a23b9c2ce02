# make demo | report | gallery | test | test-faults | lint | bench | bench-gpu | environment | setup | clean-demo
# VENV=DIR uses another virtual environment than .venv; PYTHON=python3.12 creates it with another Python.
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python
GPU = 0
OUT = bench
PIP = $(RUN) -m pip --disable-pip-version-check
# Written after everything is installed, so an interrupted installation is continued by the next make.
READY = $(VENV)/.mcja-ready

.PHONY: environment setup demo report gallery test test-faults lint bench bench-gpu clean-demo

environment: $(READY)

$(READY): requirements.txt requirements-tools.txt requirements-dev.txt tools/install_torchsort.sh
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

# The newest complete run of the demo.
DEMO = $(patsubst %/results.json,%,$(lastword $(sort $(wildcard demo/runs/sysu/*/results.json))))

report: $(READY)
	$(if $(DEMO),,$(error there is no complete run in demo/runs/sysu; run `make demo` first))
	$(RUN) -m tools.report $(DEMO) --out demo/report.html

# The pictures of the docs; screenshots need chromium and chromedriver.
gallery: $(READY)
	$(RUN) -m tools.gallery

test: $(READY)
	$(RUN) -m pytest --durations=10 --durations-min=1

test-faults: $(READY)
	$(RUN) -m pytest -m faults

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

# Small sizes on the CPU.
bench: $(READY)
	$(RUN) -m benchmarks.all --gpu cpu --out $(OUT)

# RUN=python3 uses the packages that are there, without the set-up; GPU=1 takes another GPU; OUT=DIR another folder.
bench-gpu: $(if $(filter file,$(origin RUN)),$(READY))
	$(RUN) -m benchmarks.all --gpu $(GPU) --out $(OUT)

clean-demo:
	rm -rf demo
