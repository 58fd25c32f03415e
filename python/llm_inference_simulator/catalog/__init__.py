"""Catalogues of models and accelerators."""
