"""A page of a lab notebook each: get_config(preset) -> ConfigDict."""
