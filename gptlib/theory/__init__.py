"""The mathematics of Part I: derivatives, information, codes, counts; usable alone."""
