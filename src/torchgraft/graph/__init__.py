"""A model drawn as a graph of modules: data first, then SVG, PNG, a page, dot, JSON."""
