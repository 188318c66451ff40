"""What the scripts stand on. Nothing here imports a script, or a file beside them."""
