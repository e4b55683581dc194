"""Whole systems as specs: each preset is a configuration object whose `stack()` gives a StackSpec."""
