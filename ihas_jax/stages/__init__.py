"""The stages of a run (base, search, cluster, retrain, evaluate) and their chain."""
