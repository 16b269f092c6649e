"""The parts of selection.py, of which other comparisons of sizes use some."""
