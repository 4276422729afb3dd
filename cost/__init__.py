"""Cost judges: money, prices, the ledger, metering and the plans that fit a budget."""
