"""Folders of sentence-transformers and Hugging Face: read, write, encode.

    model = sentence_folder.load("all-MiniLM-L6-v2")
    model.encode(["a red fox", "a blue whale"])       float32 [2, 384]

BERT, RoBERTa, XLM-R, CamemBERT and DistilBERT, pooled by mean, first or last token or max, with a
Dense and normalization behind it or not; and StaticEmbedding, the mean of word vectors. Weights are
never downloaded. What is written has the keys of version 2, which all later versions of
sentence-transformers read (StaticEmbedding came with 3.2).
"""

from contrastive_jax.sentence_folder.folder import SentenceFolder, describe, digest, read, write
from contrastive_jax.sentence_folder.model import Model, as_model, load

__all__ = ["Model", "SentenceFolder", "as_model", "describe", "digest", "load", "read", "write"]
