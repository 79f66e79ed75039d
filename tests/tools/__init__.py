"""Scripts that make what is committed for tests, and their parts that tests use."""
