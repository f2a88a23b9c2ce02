# make demo | make test | make lint | make setup; VENV=DIR uses an environment of your own.
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python

.PHONY: setup demo test lint clean-demo

setup:
	@$(PYTHON) tools/setup_environment.py $(VENV)

demo: setup
	@$(RUN) -m tools.demo

test: setup
	$(RUN) -m pytest

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean-demo:
	rm -rf demo
