"""Configs, kept like a lab notebook: get_config(preset) -> ConfigDict."""
