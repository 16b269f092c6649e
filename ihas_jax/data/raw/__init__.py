"""Raw logs and raw rows: what turns their values into ids."""
