"""Evaluate frozen features: search, probes, retrieval, clustering, intervals, diagnostics."""
