"""The models there is code for: trees of Python modules, each run by the engine's own Rust module of the same name."""
