"""From raw logs and raw rows to ids."""
