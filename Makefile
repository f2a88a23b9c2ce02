# make demo | make test | make test-faults | make lint | make bench | make setup; VENV=DIR uses an environment of your own.
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python

.PHONY: environment setup demo test test-faults lint bench clean-demo

environment:
	@$(PYTHON) tools/setup_environment.py $(VENV)

setup:
	@$(PYTHON) tools/setup_environment.py --again $(VENV)

demo: environment
	@$(RUN) -m tools.demo

test: environment
	$(RUN) -m pytest

test-faults: environment
	$(RUN) -m pytest -m faults

lint: environment
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

bench: environment
	$(RUN) -m benchmarks.scoring --repeats 1
	$(RUN) -m benchmarks.data

clean-demo:
	rm -rf demo
