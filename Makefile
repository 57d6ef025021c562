# Two commands do all the set-up: `make demo` and `make test`.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
INSTALLED = $(VENV)/.installed
# Tests wait for servers and workers that they start: three keep two processors busy.
TEST_PROCESSES ?= 3
SECONDS_OF_TABLE ?= 570
# Tests start hundreds of processes, each of which would compile anew what another has compiled before.
export PYTHONDONTWRITEBYTECODE =

.PHONY: demo test trainers lint bench bench-gpu table clean

demo: $(INSTALLED)
	mkdir -p demo-output
	$(BIN)/datapruner prune examples/instructions.jsonl --method qtuning --keep 0.25 --token-keep 0.5 \
		--out demo-output/subset.parquet --plain demo-output/rows.jsonl
	$(BIN)/python examples/show_defects.py demo-output/subset.parquet

test: lint
	$(BIN)/datapruner models pull smollm2-135m
	$(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

# Every trainer in an environment of its own: about 10 GB under .trainers, and the index has to be reached.
trainers: $(INSTALLED)
	$(BIN)/python -m tests.trainers

lint: $(INSTALLED)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(INSTALLED)
	$(BIN)/datapruner models pull smollm2-135m
	$(BIN)/python -m benchmarks

bench-gpu: $(INSTALLED)
	$(BIN)/datapruner models pull smollm2-135m
	$(BIN)/python -m benchmarks.gpu

# Where the corpora are, and what else: make table CORPORA=folder TABLE="--only ppl ifd"
table: $(INSTALLED)
	$(BIN)/datapruner models pull smollm2-135m
	$(BIN)/python -m benchmarks.table --data $(CORPORA) --seconds $(SECONDS_OF_TABLE) $(TABLE)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo-output
