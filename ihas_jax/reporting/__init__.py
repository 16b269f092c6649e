"""What a run shows a person: figures, a report, a closing table."""
