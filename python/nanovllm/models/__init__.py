"""Models as trees of Python modules, each of which runs the engine's own Rust module of the same name."""
