"""Sums over pairs, dense or in tiles, on one device or around a ring of them."""
