"""Images in requests: base64 in a `data:` URL, PNG or JPEG; an expert fetches nothing."""

import base64
import binascii
import io

import PIL.Image

from appliance.experts.backend import Image
from appliance.experts.errors import InvalidRequestError, UnsupportedError

MOST_IMAGES = 8
"""Images in one request."""
MOST_PIXELS = 16_000_000
"""Checked before anything is decoded."""
MOST_RATIO = 32
"""Of the longer side to the shorter one: a projector may scale a longer strip to nothing, and llama.cpp then aborts."""
LONGEST_SIDE = 2048
"""Larger images are made smaller."""
FORMATS = ("PNG", "JPEG")


def read_image(url: str, param: str) -> Image:
    """Return the image that a URL holds. Raises InvalidRequestError."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:"):
        raise UnsupportedError(
            f"{param}: an expert fetches nothing; send the image itself, as data:image/png;base64,…", param=param
        )
    if not comma or not head.endswith(";base64"):
        raise InvalidRequestError(f"{param}: expected data:image/png;base64,… or image/jpeg.", param=param)
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(f"{param}: this is no base64.", param=param) from error
    try:
        with PIL.Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InvalidRequestError(
                    f"{param}: at most {MOST_PIXELS} pixels, not {image.width} x {image.height}.", param=param
                )
            if max(image.size) > MOST_RATIO * min(image.size):
                raise InvalidRequestError(
                    f"{param}: a strip of {image.width} x {image.height} pixels; its longer side may be {MOST_RATIO} "
                    "times its shorter one.",
                    param=param,
                )
            image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
            plain = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise InvalidRequestError(f"{param}: this is no PNG or JPEG, or it is damaged.", param=param) from error
    return Image(plain.width, plain.height, plain.tobytes())
