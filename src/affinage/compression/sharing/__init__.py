"""One tensor in several places."""
