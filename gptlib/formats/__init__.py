"""Models as files, of this book and of other programs."""
