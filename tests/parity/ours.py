"""Our package under the names that a suite's reference has."""
