"""What the scripts stand on. Nothing here imports a script, or a file beside them."""
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
