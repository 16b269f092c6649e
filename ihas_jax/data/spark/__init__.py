"""Raw logs that no machine holds: the store of `prepare`, made on a Spark cluster."""
