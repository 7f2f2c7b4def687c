# Two commands for a new machine that has Python 3.11-3.13, make and a C library:
#   make demo    set up, build a demo world, report on it
#   make test    set up, run the tests
# Both keep to .venv; nothing else on the machine is changed (but for Chromium in `make test`).

.PHONY: demo test check format bench docs lock clean
.DEFAULT_GOAL := demo

demo:
	@scripts/setup core
	@.venv/bin/undertow demo

test:
	@scripts/setup dev
	@scripts/test

check:
	@scripts/setup dev
	@scripts/check

format:
	@scripts/setup dev
	@.venv/bin/ruff format src tests bench examples
	@.venv/bin/ruff check --fix src tests bench examples

bench:
	@scripts/setup dev
	@.venv/bin/python -m bench

docs:
	@scripts/setup docs
	@.venv/bin/zensical build --clean

# Needs `uv`; the files carry hashes and no index address.
LOCK = uv pip compile --universal --generate-hashes --no-emit-index-url --no-annotate \
	--python-version 3.11 --quiet --custom-compile-command "make lock" pyproject.toml --group build
lock:
	$(LOCK) -o requirements/core.txt
	$(LOCK) --group dev -c requirements/core.txt -o requirements/dev.txt
	$(LOCK) --group dev --group docs -c requirements/dev.txt -o requirements/docs.txt
	$(LOCK) --group dev --extra all -c requirements/dev.txt -o requirements/all.txt

clean:
	rm -rf .venv build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
