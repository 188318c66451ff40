"""What the scripts stand on. Nothing here imports a script, or a file beside them."""
import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# OpenCV refuses pictures of more pixels, which few cameras have, and which could fill
# the memory. It reads this when it is loaded, which TensorFlow does, too.
PIXEL_LIMIT = int(os.environ.setdefault('OPENCV_IO_MAX_IMAGE_PIXELS', str(10 ** 8)))
