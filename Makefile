# `make demo` and `make test` need Python 3.11–3.13 and nothing else; both work inside .venv.
PYTHON ?= python3
BIN := .venv/bin
SAMPLE := data/prius_walkaround.mp4
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo serve test test-all lint types wheel crossval reference clean

demo: .venv/base
	$(BIN)/carjax select $(SAMPLE) --out=out/demo

# The page, at http://127.0.0.1:8000; ARGS are flags of `carjax serve`.
serve: .venv/web
	$(BIN)/carjax serve $(ARGS)

test: .venv/test
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow" $(ARGS)

test-all: .venv/test-all .venv/npm
	$(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test
	$(BIN)/mypy

wheel: .venv/test
	$(BIN)/python -m pip wheel -q --no-deps -w dist .

# Five-fold cross-validation of the five heads; the model card's figures are nested.py's.
crossval: .venv/test
	$(BIN)/python benchmarks/crossval.py --workdir=work/crossval

# The five heads of the reference design, bundled; says what is missing of data and weights.
reference: .venv/test
	$(BIN)/python configs/reference/run.py

.venv/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else "carjax needs Python 3.11 to 3.13; call make with PYTHON=python3.12")'
	$(PYTHON) -m venv .venv

.venv/base: .venv/bin/python pyproject.toml
	@echo "installing carjax into .venv (about a minute the first time)"
	$(BIN)/python -m pip install -q -e .
	@touch $@

.venv/web: .venv/bin/python pyproject.toml
	@echo "installing carjax and its page into .venv (about a minute the first time)"
	$(BIN)/python -m pip install -e '.[web]'
	@touch $@ .venv/base

# axe-core, for the accessibility test of the page; it skips, saying so, without it.
.venv/npm: .venv/bin/python
	-npm install --silent --no-fund --no-audit --prefix $@ axe-core@4 || mkdir -p $@

.venv/test: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install -q -e '.[test]'
	@touch $@ .venv/base

.venv/test-all: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install -q -e '.[test-all]'
	@touch $@ .venv/test .venv/base

clean:
	rm -rf .venv out dist build *.egg-info
