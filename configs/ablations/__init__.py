"""Configs of ablations: get_config(preset) is the base, grid(preset) what varies, and a claim."""
