"""The mathematics of Part I, usable alone: derivatives, information, codes, counts."""
