"""The folder of a run and the files in it.

workdir.py      the folder, its lock, files replaced in one step
jsonl.py        metrics.jsonl
tensorboard.py  TensorBoard events
wandb.py        Weights & Biases
"""
