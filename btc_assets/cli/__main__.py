from btc_assets.cli.main import run

run()
