"""Texts: pairs to train on, and collections of queries, documents and judgements."""
