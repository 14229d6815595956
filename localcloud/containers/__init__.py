"""Container images without Docker: an image is a contract, and a launcher keeps it with ordinary processes."""
