"""The code behind the scripts. Nothing here imports a script or a file beside them."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
for name, value in os.environ.items():  # OpenCV aborts if a limit is malformed
    if name.startswith('OPENCV_IO_MAX_IMAGE_') and not re.fullmatch(
            '[0-9]{1,18}([KM][Bb]|kb|mb)?', value):
        sys.exit('%s is %.200r, must be an integer like 100000000' % (name, value))
