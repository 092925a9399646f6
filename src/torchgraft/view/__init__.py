"""Views: data made readable, as pages and pictures."""
