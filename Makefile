# Everything sets itself up: the first call makes a virtual environment and installs what it needs, later calls start at once.
#   make demo                     two small trainings on real data
#   make pictures                 a picture of each plot of jaxdl.report; writes docs/pictures.md
#   make notebooks                runs the teaching notebooks; writes what they show to notebooks/*.ipynb
#   make test                     linters, types and all tests
#   make test PYTHON=python3.12   the same under another Python, in an environment of its own
#   make test TESTS="-m 'not slow'"   a part of the tests
#   make bench-efficientnet       EfficientNet-B0 beside Flax, Keras and PyTorch; writes benchmarks/results/efficientnet.json
#   make bench-cnn                a small CNN beside Flax, Keras and PyTorch; writes benchmarks/results/cnn.json
#   make bench-transfer           a new head on a frozen EfficientNet-B0 beside Keras and PyTorch; writes benchmarks/results/transfer.json
#   make bench-loop               what `fit` costs beside a bare loop and Keras; writes benchmarks/results/loop.json
#   make bench-checkpoints        what it costs to save after every epoch; writes benchmarks/results/checkpoints.json
#   make bench-input              decoding, loading, augmentation and dense nets beside Pillow, grain, Keras and PyTorch; writes benchmarks/results/input.json
#   make plan                     what training takes on TPUs, by compiled steps; 20 minutes or more; writes docs/scale.md
#   make faults                   trainings that are killed, starved and damaged, and what became of them; writes benchmarks/results/faults.json
#   make parity                   every EfficientNet against the PyTorch and Keras ones; writes docs/parity.md

PYTHON ?= python3
TESTS ?=
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])'))
BIN := $(VENV)/bin

.PHONY: demo pictures notebooks test lint format parity plan bench-efficientnet bench-cnn bench-transfer bench-input bench-loop bench-checkpoints faults constraints clean

demo: $(VENV)/.installed-demo
	$(BIN)/python -m experiments.demo

pictures: $(VENV)/.installed-demo
	$(BIN)/python -m experiments.pictures

notebooks: $(VENV)/.installed-notebooks
	$(BIN)/python -m experiments.notebooks

test: lint
	$(BIN)/pytest $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parity: .venv-peers/.installed
	.venv-peers/bin/python -m benchmarks.parity

plan: $(VENV)/.installed-tpu
	$(BIN)/python -m benchmarks.scale

bench-efficientnet: .venv-peers/.installed
	.venv-peers/bin/python -m benchmarks.efficientnet

bench-cnn: .venv-peers/.installed
	.venv-peers/bin/python -m benchmarks.cnn

bench-transfer: .venv-peers/.installed
	.venv-peers/bin/python -m benchmarks.transfer

bench-loop: .venv-peers/.installed
	.venv-peers/bin/python -m benchmarks.loop

bench-input: .venv-peers/.installed
	.venv-peers/bin/python -m benchmarks.input

bench-checkpoints: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.checkpoints

faults: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.faults

# An environment of its own for what the library is compared with, made by plain pip.
.venv-peers/.installed: pyproject.toml constraints.txt benchmarks/peers.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
	  --requirement benchmarks/peers.txt --editable .
	@touch $@

# The versions that are tested, for every supported Python, without the address of any registry.
constraints: $(BIN)/uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
	  --no-header --no-annotate --output-file constraints.txt

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[$*]'
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxdl needs Python 3.11 or newer; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

clean:
	rm -rf .venv* runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
