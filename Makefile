PYTHON ?= python3
BIN := .venv/bin
# torch's wheels are big; one install, made again when the project's own files change
INSTALLED := .venv/.installed
BENCH := $(BIN)/python benchmarks/throughput.py

# of make results: seeds, where not each page's own; seconds for each comparison; where EuroSAT is;
# folders with the pieces and the generator of CamVid and nuclei (benchmarks/camvid.yaml and
# nuclei.yaml say how they are made)
SEEDS ?=
BUDGET ?=
EUROSAT ?=
CAMVID ?=
NUCLEI ?=
# of make bench-gpu: a checkout of the released ActGen, to time beside ours
ACTGEN ?=

.PHONY: demo results bench bench-gpu test test-slow test-gpu check format clean

demo: $(INSTALLED)
	$(BIN)/activegen demo --out runs/demo

results: $(INSTALLED)
	$(BIN)/python benchmarks/results.py \
		$(if $(SEEDS),--seeds $(SEEDS)) $(if $(BUDGET),--budget $(BUDGET)) $(if $(EUROSAT),--eurosat $(EUROSAT)) \
		$(if $(CAMVID),--camvid $(CAMVID)) $(if $(NUCLEI),--nuclei $(NUCLEI))
	$(BIN)/python benchmarks/guidance_effect.py --out runs/guidance_effect --docs docs/results

bench: $(INSTALLED)
	for size in embedded scenes; do $(BENCH) --device cpu --size $$size \
		--json docs/performance/$$size-cpu.json || exit; done
	$(BENCH) --publish

bench-gpu: $(INSTALLED)
	for size in sd15 sd15-controlnet sd21 sdxl; do $(BENCH) --device cuda --size $$size \
		--json docs/performance/$$size-cuda.json || exit; done
	$(if $(ACTGEN),$(BIN)/python benchmarks/released_actgen.py --checkout $(ACTGEN) --size sd15 \
		--batch 16 --json docs/released_actgen.json)
	$(BENCH) --publish

test: $(INSTALLED)
	$(BIN)/pytest -q

test-slow: $(INSTALLED)
	$(BIN)/pytest -q -m slow

test-gpu: $(INSTALLED)
	$(BIN)/pytest -q -m gpu

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/pytest -q

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist runs .pytest_cache .ruff_cache
