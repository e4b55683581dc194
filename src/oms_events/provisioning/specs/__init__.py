"""Resources as frozen models, each of which renders its entries of a template. Pure."""
