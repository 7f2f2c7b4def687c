"""The same owner, the same collateral, the same plumbing: who is pulled along by whom."""
