"""Drawing the letters of `letters:COUNT`: the frozen classes, the fonts, the pen and the scanner."""
