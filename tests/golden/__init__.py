"""Golden numbers, the scripts that make them, and the code that draws what they are computed from: see README.md."""
