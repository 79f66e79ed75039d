"""nano-vLLM's names that are not here, or take something else, each with its reason."""

ABSENT = {}
OTHERWISE = {}
