# Each target sets up .venv by itself on first use, and not again until the requirements change.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
OUT ?= demo-output
N ?= 50

.PHONY: help demo test lint bench gpu-check chaos mini mini-corpus clean
help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

$(READY): pyproject.toml constraints.txt tests/moto.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@test -x .venv/moto/bin/python || $(PYTHON) -m venv .venv/moto
	.venv/moto/bin/python -m pip install --quiet --disable-pip-version-check -r tests/moto.txt
	@touch $(READY)

demo: $(READY) ## the whole workflow offline: corpus, audit, training, pictures; ends with a page to open
	$(BIN)/stylear demo --out $(OUT)

# the two workers have a core each; more threads would only wait for each other
test: export OMP_NUM_THREADS = 1
test: $(READY) ## all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -m alone

lint: $(READY) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## comparisons against peers; results go to benchmarks/results
	for script in $(filter-out benchmarks/gpu_check.py,$(wildcard benchmarks/*.py)); do \
	  $(BIN)/python $$script || exit 1; done

gpu-check: $(READY) ## device tests and benchmarks on a GPU, ten minutes at most; results go to benchmarks/results
	$(BIN)/python benchmarks/gpu_check.py

chaos: $(READY) ## kill -9 a run at N random points, a forget at every step: make chaos N=200
	CHAOS_ROUNDS=$(N) FORGET_KILL_STEP=1 $(BIN)/python -m pytest tests/run/test_chaos.py tests/forget/test_forget_killed.py

mini-corpus: $(READY) ## rebuild the embedded corpus from the two npm packages (needs npm)
	mkdir -p mini-build && cd mini-build && npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
	cd mini-build && for v in google twitter; do mkdir -p $$v && \
	  tar xzf emoji-datasource-$$v-16.0.0.tgz -C $$v package/emoji.json package/img/$$v/64; done
	rm -rf mini-build/drawings mini-build/drawings-corpus
	$(BIN)/python -m stylear.mini.emoji --noto mini-build/google/package --twemoji mini-build/twitter/package --out mini-build/drawings
	$(BIN)/stylear curate fetch manifests/mini-corpus.yaml --out mini-build/drawings-corpus
	rm -f stylear/mini/corpus/* && cp mini-build/drawings-corpus/raw/*.tar mini-build/drawings-corpus/raw/*.parquet stylear/mini/corpus/

mini: $(READY) ## train the mini models from scratch, on a GPU where there is one; stopped, it resumes
	$(BIN)/python -m stylear.mini.train_clip
	$(BIN)/python -m stylear.mini.train_vq
	$(BIN)/python -m stylear.mini.train_ar
	$(BIN)/python -m stylear.mini.train_stylear
	$(BIN)/stylear models verify --write

clean: ## remove what the other targets made
	rm -rf .venv demo-output mini-build
