"""Golden numbers, and the code that draws what they were computed from."""
