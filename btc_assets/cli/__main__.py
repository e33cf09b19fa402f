from btc_assets.cli.main import main

main()
