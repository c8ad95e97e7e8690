"""Modules made of cells."""

from carousel.nn.attention import BahdanauAttention, LuongAttention
from carousel.nn.check import check_cell
from carousel.nn.crf import LinearChainCRF, TagRules
from carousel.nn.dilation import Dilated
from carousel.nn.directions import Directions
from carousel.nn.dropouts import CandidateDropout, Zoneout, dropped_weights
from carousel.nn.embedding import Embedding
from carousel.nn.encoder_decoder import Design, EncoderDecoder, coverage_loss
from carousel.nn.initial import LearnedStart
from carousel.nn.locked import Locked
from carousel.nn.pyramid import Pyramid, join_steps
from carousel.nn.recurrent import Recurrent
from carousel.nn.shape import Shape
from carousel.nn.spec import RecurrentSpec
from carousel.nn.stream import Stream
from carousel.nn.torch_layers import GRU, LSTM, RNN
from carousel.nn.trajectory import Trajectory, trajectory
from carousel.nn.unroll import unroll
from carousel.nn.wrapper import Wrapper

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BahdanauAttention",
    "CandidateDropout",
    "Design",
    "Dilated",
    "Directions",
    "Embedding",
    "EncoderDecoder",
    "LearnedStart",
    "LinearChainCRF",
    "Locked",
    "LuongAttention",
    "Pyramid",
    "Recurrent",
    "RecurrentSpec",
    "Shape",
    "Stream",
    "TagRules",
    "Trajectory",
    "Wrapper",
    "Zoneout",
    "check_cell",
    "coverage_loss",
    "dropped_weights",
    "join_steps",
    "trajectory",
    "unroll",
]
