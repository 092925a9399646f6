"""How changes are carried out: only this package changes a module, and everything it does can be taken back."""
