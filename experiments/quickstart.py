"""Moving digits on two CPU cores in minutes."""

from stunet import configs


def get_config():
    config = configs.default()
    config.model.channels = 32
    config.model.channel_multipliers = (1, 2)
    config.model.layers_per_level = 1
    config.model.attention_levels = (False, True)
    config.model.temporal_factors = (1, 2)
    config.model.temporal_attention_blocks = 1
    config.model.patch_size = 2
    config.model.groups = 8
    config.model.head_channels = 32
    config.model.text_features = 64
    config.model.text_groups = 8
    config.model.text_pooling_heads = 4
    config.model.activation = "silu"
    config.text.max_length = 32
    config.data.channels = 1
    config.train.steps = 1500
    config.train.batch_size = 16
    config.train.learning_rate = 1e-3
    config.train.ema_decay = 0.995
    config.checkpoint.every = 250
    config.log.every = 10
    config.log.validate_every = 500
    config.log.sample_every = 0
    config.sample.steps = 40
    config.sample.threshold = "static"
    return config
