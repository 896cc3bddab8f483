"""Registry, files, checkpoints, logging, meters, seeding."""

from dassl.utils.checkpoint import (
    load_checkpoint,
    load_pretrained_weights,
    resume_from_checkpoint,
    save_checkpoint,
)
from dassl.utils.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingFileError,
    NonFiniteLossError,
    UnknownNameError,
    UserError,
)
from dassl.utils.files import (
    check_isfile,
    listdir_nohidden,
    mkdir_if_missing,
    read_json,
    write_atomically,
    write_json,
)
from dassl.utils.images import open_image, read_image
from dassl.utils.logger import Logger, setup_logger
from dassl.utils.meters import AverageMeter, MetricMeter
from dassl.utils.registry import Registry, check_availability
from dassl.utils.tools import (
    collect_env_info,
    count_num_param,
    download_url,
    get_most_similar_str_to_a_from_b,
    set_random_seed,
    tolist_if_not,
)
from dassl.utils.torchtools import init_network_weights, open_all_layers, open_specified_layers

__all__ = [
    "AverageMeter",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Logger",
    "MetricMeter",
    "MissingFileError",
    "NonFiniteLossError",
    "Registry",
    "UnknownNameError",
    "UserError",
    "check_availability",
    "check_isfile",
    "collect_env_info",
    "count_num_param",
    "download_url",
    "get_most_similar_str_to_a_from_b",
    "init_network_weights",
    "listdir_nohidden",
    "load_checkpoint",
    "load_pretrained_weights",
    "mkdir_if_missing",
    "open_all_layers",
    "open_image",
    "open_specified_layers",
    "read_image",
    "read_json",
    "resume_from_checkpoint",
    "save_checkpoint",
    "set_random_seed",
    "setup_logger",
    "tolist_if_not",
    "write_atomically",
    "write_json",
]
