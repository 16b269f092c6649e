"""The stages of a run: base, search, choose, retrain, evaluate."""
