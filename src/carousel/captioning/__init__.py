"""Image captioning by encoder and decoder: the model, its photo encoder, and the captioner they make."""

from .attend import Adaptive, Attend
from .captioner import SHIPPED, Captioner
from .captions import Caption, Decoding
from .config import CaptioningConfig
from .decoder import Decoder, teacher_forced
from .nic import NIC, DecoderState
from .photo_captions import PhotoCaptions, caption_photos
from .photo_encoder import ALL_FROZEN, FoldedEncoder, Looked, PhotoEncoder, Seen, pooled, rows

__all__ = [
    "ALL_FROZEN",
    "NIC",
    "SHIPPED",
    "Adaptive",
    "Attend",
    "Caption",
    "Captioner",
    "CaptioningConfig",
    "Decoder",
    "DecoderState",
    "Decoding",
    "FoldedEncoder",
    "Looked",
    "PhotoCaptions",
    "PhotoEncoder",
    "Seen",
    "caption_photos",
    "pooled",
    "rows",
    "teacher_forced",
]
