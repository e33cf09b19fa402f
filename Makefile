PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo similar explore dev test test-all faults drill fuzz workers soak test-browser bench compare compare-loading compare-stores compare-research bench-chain bench-load bench-read bench-start bench-timescale bench-live bench-sensor bench-search bench-encoders bench-accuracy bench-features bench-bars bench-scale bench-symbols bench-worst-day bench-ui docs lint check-terraform lock clean

demo: $(VENV)/ready  ## A day of trades from the landing zone to candles. TRADES=file.csv.gz for your own.
	$(BIN)/btc-assets demo $(if $(TRADES),--trades "$(TRADES)")

similar: $(VENV)/ready-torch  ## After a demo: an encoder trained on its day, and the slices that look most like the one of AT. Installs PyTorch.
	$(BIN)/btc-assets train --activate
	$(BIN)/btc-assets similar $(AT) -k 7 --apart 30 --plot .btc_assets/similar.png

# The token keeps other users of this machine out: whoever opens the app reads the store.
explore: $(VENV)/ready-notebooks  ## The store in the browser: candles, volume, gaps, similar slices. Loads a demo if there is no store. Installs marimo.
	[ -e .env ] || [ -n "$$BTC_ASSETS_DSN" ] || [ -e "$${BTC_ASSETS_HOME:-.btc_assets}/demo.env" ] || $(BIN)/btc-assets demo
	$(BIN)/marimo run notebooks/first_look.py --host 127.0.0.1 --token $(ARGS)

dev: $(VENV)/ready  ## The Dagster UI on the same database.
	$(BIN)/btc-assets dev

test: $(VENV)/ready-dev  ## The tests of daily work: all but the slow ones. ARGS goes to pytest.
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow' $(ARGS)

test-all: $(VENV)/ready-dev  ## Every test, with kills, restores, hosts and workers.
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

faults: $(VENV)/ready-dev  ## Loaders killed at 60 moments, and every other fault of docs/faults.md. Ten minutes; FAULT_SEED=2 for other moments.
	FAULT_KILLS=$${FAULT_KILLS:-60} $(BIN)/python -m pytest btc_assets_tests/end_to_end/test_faults.py -s $(ARGS)

drill: $(VENV)/ready-dev  ## How much a host loses that is killed while it loads, with the archive_timeout of a real one. Three minutes.
	DRILL_ARCHIVE_TIMEOUT=60 $(BIN)/python -m pytest btc_assets_tests/backup/test_restore_drill.py -k host_is_gone -s

soak: $(VENV)/ready-dev  ## Random landings, faults, kills, sensors and policies for MINUTES=10, checked all the while. SEED=1 repeats a run.
	SOAK_MINUTES=$(or $(MINUTES),10) SOAK_SEED=$(or $(SEED),1) $(BIN)/python -m pytest btc_assets_tests/end_to_end/test_soak.py -k long -s $(ARGS)

fuzz: $(VENV)/ready-dev  ## Objects of every format, changed at random: each is decoded or rejected. MINUTES=10; SEED=2 for others.
	FUZZ_MINUTES=$(or $(MINUTES),10) FUZZ_SEED=$(or $(SEED),1) $(BIN)/python -m pytest btc_assets_tests/landing/test_fuzz.py -s $(ARGS)

workers: $(VENV)/ready-dev  ## A backfill of ten days over three workers that are killed again and again; needs redis-server. A few minutes.
	WORKERS_DAYS=$${WORKERS_DAYS:-10} WORKERS_KILLS=$${WORKERS_KILLS:-9} WORKERS_TICKS=$${WORKERS_TICKS:-100000} \
		$(BIN)/python -m pytest btc_assets_tests/end_to_end/test_workers.py -s $(ARGS)

test-browser: $(VENV)/ready-dev  ## The UI and the first notebook in a real Chromium; screenshots go to .btc_assets/screenshots.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(BIN)/python -m pytest btc_assets_tests/end_to_end/test_ui.py btc_assets_tests/end_to_end/test_explore.py $(ARGS)

bench: $(VENV)/ready-dev  ## The figures of docs/benchmarks.md, measured and written into it; also on the server of BTC_ASSETS_TEST_DSN. Half an hour.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-load: $(VENV)/ready-dev  ## Load rates as ratios to the server's own COPY.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench_load.py $(ARGS)

bench-read: $(VENV)/ready-dev  ## Reading a day of ticks back, beside COPY, ADBC, connectorx and pandas. ARGS='--ticks 900000 --repeat 2' for a try.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench_read.py $(ARGS)

bench-start: $(VENV)/ready-dev  ## How long commands take to answer.
	$(BIN)/python benchmarks/bench_start.py $(ARGS)

bench-chain: $(VENV)/ready-dev  ## The whole chain of a day, stage by stage, in multiples of the server's own COPY. ARGS='--busy 4' beside busy loops.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python benchmarks/bench_chain.py $(ARGS)

compare: $(VENV)/ready-dev $(VENV)-stores/bin/python  ## The project beside dlt, Polars, pandas, ClickHouse, DuckDB, ArcticDB and nautilus_trader, written into docs/compare.md. An hour.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[compare]'
	$(BIN)/python benchmarks/bench_compare.py --table docs/compare.md --plot docs/compare.png
	$(BIN)/python benchmarks/bench_stores.py --apart $(VENV)-stores/bin/python --table docs/compare.md
	$(BIN)/python benchmarks/compare_research.py --apart $(VENV)-stores/bin/python --table docs/compare.md

compare-loading: $(VENV)/ready-dev  ## Its first half: rates of loading. ARGS='--ticks 300000 --repeat 1' for a try.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[compare]'
	$(BIN)/python benchmarks/bench_compare.py $(ARGS)

compare-stores: $(VENV)/ready-dev $(VENV)-stores/bin/python  ## Its second half: loaded twice, corrected, killed, read. ARGS='--only project duckdb' for some.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[compare]'
	$(BIN)/python benchmarks/bench_stores.py --apart $(VENV)-stores/bin/python $(ARGS)

compare-research: $(VENV)/ready-dev $(VENV)-stores/bin/python  ## Ten research tasks: lines and seconds of the client, SQL, DuckDB and ArcticDB. ARGS='--ticks 20000 --repeat 1' for a try.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[compare]'
	$(BIN)/python benchmarks/compare_research.py --apart $(VENV)-stores/bin/python $(ARGS)

bench-timescale: $(VENV)/ready-dev  ## The TimescaleDB engine on the server that BTC_ASSETS_TEST_DSN names.
	$(BIN)/python benchmarks/bench_timescale.py $(ARGS)

bench-live: $(VENV)/ready-dev  ## From the end of a slice to its candles, with trades played into a store of its own.
	$(BIN)/python benchmarks/bench_live.py $(ARGS)

bench-sensor: $(VENV)/ready-dev  ## A tick of the sensors, with up to a million objects registered.
	$(BIN)/python benchmarks/bench_sensor.py $(ARGS)

bench-scale: $(VENV)/ready-dev  ## What a day costs as days pile up: 1, 7 and 30 days of 3 million trades. Half an hour, 30 GB of disk.
	$(BIN)/python benchmarks/bench_scale.py $(ARGS)

bench-symbols: $(VENV)/ready-dev  ## What 3 million trades cost as those of 1, 10 and 100 feeds: seconds, statements, listings. Ten minutes.
	$(BIN)/python benchmarks/bench_symbols.py $(ARGS)

bench-worst-day: $(VENV)/ready-dev  ## 15.2 million trades with the largest burst that was met. Ten minutes; ARGS='--scale 0.05' is a minute, '--live 30' plays the burst.
	$(BIN)/python benchmarks/bench_worst_day.py $(ARGS)

bench-ui: $(VENV)/ready-dev  ## The UI's asset page with a million materialised slices, in a real Chromium.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser]'
	$(BIN)/python benchmarks/bench_ui.py $(ARGS)

bench-features: $(VENV)/ready-dev  ## Features and bars of a day of ticks.
	$(BIN)/python benchmarks/bench_features.py $(ARGS)

bench-bars: $(VENV)/ready-dev  ## Bars on every clock, of a day of ticks.
	$(BIN)/python benchmarks/bench_bars.py $(ARGS)

bench-encoders: $(VENV)/ready-dev  ## Encoders: slices a second, and training time.
	$(BIN)/python benchmarks/bench_encoders.py --rate $(ARGS)

bench-accuracy: $(VENV)-accuracy/bin/python  ## Encoders on nine labelled data sets, in an environment of their own.
	$(VENV)-accuracy/bin/python benchmarks/bench_encoders.py --aeon $(ARGS)

bench-search: $(VENV)/ready-dev  ## Finding similar slices: recall and queries a second.
	$(BIN)/python benchmarks/bench_search.py $(ARGS)

docs: $(VENV)/ready-dev  ## docs/settings.md, docs/commands.md and docs/dagster.md, generated from the code; and the site, in .btc_assets/site.
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "The site: .btc_assets/site/index.html"

lint: $(VENV)/ready-dev  ## Style, types, which package imports which, and spelling. One minute; seconds once mypy has its cache.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/marimo --quiet check --strict --ignore MF001 notebooks/*.py

# Here without Terraform's registry where that tool is.
TERRAFORM_CHECK := ../shared/tools/terraform_check/check

check-terraform: $(VENV)-checkov/bin/checkov  ## terraform/: validated, its rules tested, and scanned.
	if [ -x $(TERRAFORM_CHECK) ]; then $(TERRAFORM_CHECK) terraform; else cd terraform && terraform fmt -check -recursive \
		&& terraform init -backend=false -input=false && terraform validate && terraform test; fi
	$< -d terraform --skip-download --quiet --compact

$(VENV)-checkov/bin/checkov:
	$(PYTHON) -m venv $(VENV)-checkov
	$(VENV)-checkov/bin/python -m pip install --quiet --disable-pip-version-check 'checkov>=3.2,<4'

lock: $(VENV)/ready-dev  ## Pin what is installed now; run it in a fresh environment with all extras.
	$(BIN)/python -m pip freeze --exclude-editable | grep -iv '^torch==' > constraints.txt

clean:
	rm -rf $(VENV) $(VENV)-accuracy $(VENV)-checkov $(VENV)-stores .btc_assets $(WASM)/node_modules

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("btc_assets needs Python 3.11 or later; name one with make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# Compiled once here, because a start-up without bytecode takes three times as long.
$(VENV)/ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	-$(BIN)/python -m compileall -q -j 0 $(VENV)/lib
	touch $@

$(VENV)/ready-torch: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[torch]'
	touch $@

$(VENV)/ready-notebooks: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[notebooks]'
	touch $@

# Apart, because they hold pandas below 3 and packages of Dagster's at other versions than ours.
$(VENV)-stores/bin/python:
	$(PYTHON) -m venv $(VENV)-stores
	$@ -m pip install --quiet --disable-pip-version-check 'arcticdb>=6.28,<7' 'nautilus_trader>=1.221,<2' polars pyarrow psutil

$(VENV)-accuracy/bin/python: pyproject.toml
	$(PYTHON) -m venv $(VENV)-accuracy
	$(VENV)-accuracy/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[torch,accuracy]'

WASM := btc_assets_tests/support/wasm

# TimescaleDB in WebAssembly, for the tests of that engine; without Node they are skipped, and say so.
$(VENV)/ready-dev: $(VENV)/ready-torch $(WASM)/package-lock.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,workers]'
	if command -v npm >/dev/null; then npm ci --prefix $(WASM) --silent --no-audit --no-fund; else echo "no Node: tests on TimescaleDB will be skipped"; fi
	touch $@
