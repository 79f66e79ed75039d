"""Independent oracles in plain Python and numpy: nothing here imports the package under test."""
