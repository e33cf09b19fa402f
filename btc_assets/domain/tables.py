"""Names of tables that several rooms use. They stand apart from `ticks`, because importing Arrow takes a quarter of a second."""

TICKS = "market_data.btc_ticks"
