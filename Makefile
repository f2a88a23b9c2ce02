# make demo | make test | make test-faults | make lint | make bench | make bench-gpu | make setup
# VENV=DIR uses an environment of your own.
VENV ?= .venv
PYTHON ?= python3
RUN = $(VENV)/bin/python

.PHONY: environment setup demo test test-faults lint bench bench-gpu clean-demo

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
	$(RUN) -m benchmarks.extraction --repeats 1 backbone resnet18 num_workers 0
	$(RUN) -m benchmarks.step --repeats 1 --steps 2 backbone resnet18 p_size 2 k_size 4 batch_size 16

bench-gpu: environment
	mkdir -p bench
	$(RUN) -m pytest -m gpu tests/test_gpu.py
	$(RUN) -m benchmarks.scoring --gpu 0 --json bench/scoring.json
	$(RUN) -m benchmarks.data --gpu 0 --json bench/data.json
	$(RUN) -m benchmarks.extraction --gpu 0 --images 2048 --json bench/extraction.json
	$(RUN) -m benchmarks.step --gpu 0 --json bench/step.json
	$(RUN) -m benchmarks.step --gpu 0 --json bench/step-compiled.json compile true

clean-demo:
	rm -rf demo
