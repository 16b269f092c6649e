"""Results for people: figures, reports, tables, comparisons over seeds."""
