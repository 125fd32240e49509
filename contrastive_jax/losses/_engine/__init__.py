"""Sums over pairs of rows: dense or in tiles, on one device or around a ring of devices."""
