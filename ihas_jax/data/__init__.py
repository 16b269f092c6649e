"""From a raw click log to a store of encoded rows, and from the store to batches."""
