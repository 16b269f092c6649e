"""What a run leaves for prediction."""
