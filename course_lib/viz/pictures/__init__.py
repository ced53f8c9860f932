"""One file a picture: `build(choices) -> Scene`, and the function that a lesson calls."""
