# `make demo` and `make test` do the whole set-up on a fresh machine.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= demo
EXTRAS := learned,ocr,shots,speech,caption,train,demo,dev

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile

$(VENV)/.installed: pyproject.toml constraints.txt curation/torchvision_cpu.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -m curation.torchvision_cpu
	touch $@

install: $(VENV)/.installed  ## make or reuse .venv with everything in it

demo: install  ## curate sample films (or VIDEOS=folder), write the report, train on the result, sample a clip
	$(BIN)/python -m curation.demo --out $(OUT) $(if $(VIDEOS),--videos '$(VIDEOS)')

test: install  ## all tests
	$(BIN)/python -m pytest $(ARGS)

lint: install  ## ruff and mypy
	$(BIN)/ruff check --output-format concise . && $(BIN)/mypy

bench: install  ## speed, as ratios measured in one run
	$(BIN)/python -m benchmarks.curate

clean:  ## remove what the targets above made
	rm -rf $(VENV) $(OUT) build *.egg-info
