"""The parts of selection.py: its rows, the verdict on the goal, the table, the figure."""
