"""Zero-Hero: the package behind the book."""
