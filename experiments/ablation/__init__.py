"""An ablation: its grid, its runs, its results."""
