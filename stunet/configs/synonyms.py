"""Maps the names that other programs use for settings to the names that stunet uses.

The other programs are MaxText, diffusers, big_vision, Lightning and their like. To add a name, add
it to a row below, or add a row. A test checks that all stunet keys and choices in the rows exist.
"""

from typing import NamedTuple


class Synonym(NamedTuple):
    """Names of one setting in other programs.

    Attributes:
        names: the names, separated by spaces. For a setting that another program calls
            `model.width`, the name is "model_width", or "width" if the group does not matter. The
            longer name is looked up first.
        keys: stunet's keys for this setting, separated by spaces; empty if there are none.
        note: hint for a setting that works differently in stunet, as a sentence without a full
            stop. The error message adds the keys at the end of the hint. If the note is empty, the
            message suggests the keys alone.
    """

    names: str
    keys: str
    note: str = ""


_PARALLEL = "mesh.data mesh.fsdp mesh.context mesh.tensor"

SYNONYMS = (
    # Run.
    Synonym("random_seed rng_seed rng manual_seed global_seed prng_seed data_shuffle_seed", "seed"),
    Synonym("freeze_spatial freeze_unet freeze_backbone trainable_modules frozen", "freeze"),
    Synonym(
        "output_dir out_dir outdir workdir work_dir log_dir logdir logging_dir save_dir "
        "checkpoint_dir ckpt_dir checkpoint_path base_output_directory default_root_dir run_name "
        "exp_name experiment_name results_dir",
        "",
        "all output goes to the directory that --workdir names",
    ),
    Synonym(
        "wandb use_wandb wandb_project wandb_entity wandb_run tensorboard enable_tensorboard "
        "tensorboard_dir report_to logger mlflow tracker trackio",
        "log.trackers",
        "metrics always go to metrics.jsonl in --workdir; for other programs, such as "
        "'tensorboard,wandb', set",
    ),
    Synonym(
        "resume resume_from resume_from_checkpoint auto_resume ckpt_path load_checkpoint restore",
        "train.init_from",
        "the same command with the same --workdir continues a run; to begin with the weights of "
        "another run, set",
    ),
    Synonym(
        "pretrained pretrained_model pretrained_model_name_or_path init_checkpoint init_ckpt "
        "finetune finetune_from load_parameters_path model_init weights load_from",
        "train.init_from",
    ),
    Synonym(
        "prompt prompts validation_prompt validation_prompts negative_prompt",
        "",
        "prompts are not part of a config; give them to `stunet sample text` as --prompt",
    ),
    Synonym(
        "device accelerator platform hardware backend",
        "",
        "JAX chooses the devices; set the environment variable JAX_PLATFORMS to choose yourself",
    ),
    Synonym(
        "compile torch_compile jit use_jit", "", "every program is compiled; there is no key for it"
    ),
    # Updates.
    Synonym("lr max_lr base_lr peak_lr init_lr step_size", "train.learning_rate"),
    Synonym(
        "min_lr lr_min end_lr final_lr eta_min lr_end learning_rate_final_fraction "
        "cosine_learning_rate_final_fraction",
        "train.final_learning_rate",
    ),
    Synonym(
        "lr_schedule lr_scheduler lr_scheduler_type scheduler learning_rate_schedule lr_decay "
        "decay_type",
        "train.schedule",
    ),
    Synonym(
        "decay_start decay_start_step lr_decay_start decay_steps num_decay_steps cooldown "
        "cooldown_steps wsd_decay_steps wsd_decay_steps_fraction num_stable_steps stable_steps",
        "train.decay_begin",
        "the decay ends at the last update, and so one number says when it begins: set",
    ),
    Synonym(
        "warmup lr_warmup lr_warmup_steps num_warmup_steps warmup_iters warmup_updates "
        "warmup_ratio warmup_epochs warmup_examples warmup_percent warmup_steps_fraction",
        "train.warmup_steps",
    ),
    Synonym(
        "epochs epoch num_epochs n_epochs max_epochs total_epochs num_train_epochs",
        "train.steps",
        "training counts updates, not epochs; set",
    ),
    Synonym(
        "max_steps num_steps num_train_steps max_train_steps total_steps "
        "training_steps iterations num_iterations iters max_iters num_iters updates num_updates",
        "train.steps",
    ),
    Synonym(
        "batch bs batchsize train_batch global_batch_size total_batch_size data_batch_size",
        "train.batch_size",
    ),
    Synonym(
        "per_device_batch_size per_device_train_batch_size per_gpu_batch_size local_batch_size "
        "micro_batch_size batch_size_per_gpu batch_size_per_device",
        "train.batch_size",
        "a batch is counted over all devices; set",
    ),
    Synonym(
        "gradient_accumulation gradient_accumulation_steps grad_accum grad_accum_steps "
        "accumulate_grad_batches accumulation_steps accumulation microbatches num_microbatches",
        "train.accumulate",
    ),
    Synonym(
        "optimiser optim opt optimizer_type optimizer_name opt_type optax_name",
        "train.optimizer",
    ),
    Synonym(
        "use_8bit_adam",
        "train.optimizer",
        "moments are float32; an optimiser with fewer of them is chosen by",
    ),
    Synonym("beta adam_beta1 adam_b1 b1 momentum", "train.beta1"),
    Synonym("adam_beta2 adam_b2 b2", "train.beta2"),
    Synonym("betas adam_betas", "train.beta1 train.beta2"),
    Synonym(
        "eps epsilon adam_eps adam_epsilon opt_eps",
        "",
        "the epsilon of AdamW, Muon and schedule-free AdamW is 1e-8; there is no key for it",
    ),
    Synonym("wd l2 adam_weight_decay weight_decay_rate adamw_weight_decay", "train.weight_decay"),
    Synonym(
        "grad_clip clip grad_clipping gradient_clip gradient_clipping gradient_clip_val clip_grad "
        "max_grad_norm grad_clip_norm clip_grad_norm gradient_clipping_threshold grad_norm_clip",
        "train.clip_norm",
    ),
    Synonym("ema use_ema ema_rate ema_beta ema_max_decay polyak averaging", "train.ema_decay"),
    # Checkpoints, metrics, samples while training.
    Synonym(
        "save_every save_steps save_interval save_freq checkpointing_steps "
        "checkpoint_steps checkpoint_period checkpoint_interval ckpt_every ckpt_steps "
        "ckpt_interval every_n_train_steps",
        "checkpoint.every",
    ),
    Synonym(
        "save_minutes save_interval_minutes checkpoint_minutes train_time_interval",
        "checkpoint.every_minutes",
    ),
    Synonym(
        "keep_period keep_checkpoint_every keep_every_n_steps keep_interval",
        "checkpoint.keep_every",
    ),
    Synonym(
        "monitor save_best best_metric metric_for_best_model load_best_model_at_end best_fn",
        "checkpoint.keep_best",
    ),
    Synonym("best_mode mode greater_is_better", "checkpoint.best_is"),
    Synonym(
        "fvd_every fvd_freq compute_fvd fid_every compute_metrics evaluator evaluators "
        "metrics_every num_fvd_samples",
        "evaluate.every evaluate.metrics evaluate.num",
    ),
    Synonym(
        "max_to_keep keep_last save_total_limit save_top_k checkpoints_total_limit "
        "num_checkpoints max_checkpoints keep_checkpoints keep_ckpt max_num_checkpoints_to_keep",
        "checkpoint.keep",
    ),
    Synonym(
        "log_steps log_interval log_freq log_period logging_steps log_every_n_steps print_freq "
        "print_every report_every log_training_steps",
        "log.every",
    ),
    Synonym(
        "eval eval_every eval_interval eval_steps eval_freq val_every val_interval "
        "val_steps val_check_interval check_val_every_n_epoch validation validation_every "
        "validation_steps validation_interval validate test test_every",
        "log.validate_every",
    ),
    Synonym(
        "eval_clips eval_samples num_eval_samples num_eval_clips val_clips val_samples "
        "eval_batches limit_val_batches num_validation_samples validation_clips",
        "log.validate_clips",
    ),
    Synonym(
        "sample_interval sample_freq sample_every_n_steps preview_every preview image_every "
        "log_images_every log_samples_every",
        "log.sample_every",
    ),
    Synonym(
        "profiler profiler_steps profile_every trace trace_steps skip_first_n_steps_for_profiler",
        "profile.start profile.steps",
    ),
    # Data.
    Synonym(
        "n_frames num_frames nframes frame_count n_frame clip_len clip_length video_length "
        "max_frames sample_n_frames num_frame seq_len sequence_length timesteps_per_clip",
        "data.frames",
    ),
    Synonym(
        "resolution res image_size img_size image_resolution size video_size frame_size crop_size "
        "sample_size input_size spatial_size data_size image_shape video_shape",
        "data.height data.width",
    ),
    Synonym("h rows image_height img_height video_height", "data.height"),
    Synonym("w cols columns image_width img_width video_width", "data.width"),
    Synonym("frame_rate framerate frames_per_second sample_fps video_fps", "data.fps"),
    Synonym("random_crop center_crop centre_crop crop_mode crop_type", "data.crop"),
    Synonym(
        "flip random_flip hflip horizontal_flip random_horizontal_flip mirrored", "data.mirror"
    ),
    Synonym(
        "frame_stride frame_interval frame_skip sample_stride temporal_stride frame_step "
        "every_nth_frame",
        "data.stride",
    ),
    Synonym(
        "in_channels out_channels num_channels image_channels img_channels input_channels "
        "model_in_channels model_out_channels",
        "data.channels",
    ),
    Synonym(
        "dataset dataset_name dataset_type dataset_id data_name data_type",
        "data.source data.path",
    ),
    Synonym(
        "data_dir data_root dataset_dir dataset_path dataset_root train_data_dir "
        "instance_data_dir video_dir video_folder input_dir root folder directory",
        "data.path",
    ),
    Synonym(
        "num_workers n_workers workers dataloader_num_workers num_data_workers prefetch "
        "prefetch_factor grain_worker_count read_threads",
        "data.num_threads",
    ),
    Synonym(
        "max_train_samples max_samples num_examples num_train_examples subset limit "
        "limit_train_batches data_limit num_videos data_num data_num_samples",
        "data.num_clips",
    ),
    Synonym(
        "mixture mixtures datasets dataset_mixture data_mixture train_datasets streams "
        "blend data_blend dataset_weights mixture_weights sampling_weights",
        "data.mix",
    ),
    Synonym(
        "bucket buckets bucket_config bucketing resolution_buckets frame_buckets ar_buckets "
        "aspect_ratio_bucketing enable_ar_bucket",
        "data.mix data.max_crop",
        "each entry with other frames, height or width is a bucket; see",
    ),
    Synonym(
        "shuffle shuffle_buffer shuffle_buffer_size enable_data_shuffling",
        "",
        "training clips are always shuffled",
    ),
    # Mesh.
    Synonym(
        "gpus gpu num_gpus n_gpus n_gpu devices num_devices n_devices tpus num_tpus nproc "
        "num_processes world_size nodes num_nodes strategy parallelism mesh_shape mesh_axes",
        _PARALLEL,
        "a run uses all devices; how they share the work is set by",
    ),
    Synonym(
        "dp ddp data_parallel data_parallelism ici_data_parallelism dp_size mesh_batch", "mesh.data"
    ),
    Synonym(
        "zero fsdp_size shard_params ici_fsdp_parallelism fsdp_parallelism param_sharding",
        "mesh.fsdp",
    ),
    Synonym(
        "tp tp_size tensor_parallel tensor_parallelism ici_tensor_parallelism model_parallel "
        "model_parallelism mesh_model",
        "mesh.tensor",
    ),
    Synonym(
        "sp cp sequence_parallel sequence_parallelism context_parallel context_parallelism "
        "ici_sequence_parallelism ici_context_parallelism spatial_parallelism mesh_sequence",
        "mesh.context",
    ),
    Synonym("dcn_data_parallelism num_slices slices", "mesh.slice"),
    # Network.
    Synonym(
        "base_channels unet_channels ch base_dim hidden_size hidden_dim n_embd "
        "embed_dim emb_dim d_model model_width model_dim model_size width_multiplier features "
        "num_filters base_features",
        "model.channels",
    ),
    Synonym(
        "ch_mult channel_mult channel_mults channel_multiplier dim_mults",
        "model.channel_multipliers",
    ),
    Synonym("unet_type architecture arch model_type backbone", "model.family"),
    Synonym(
        "transformer_layers_per_block transformer_depth depth_transformer",
        "model.transformer_layers",
    ),
    Synonym("block_out_channels", "model.channels model.channel_multipliers"),
    Synonym(
        "num_res_blocks num_resnet_blocks res_blocks layers_per_block num_layers n_layers n_layer "
        "num_blocks depth num_decoder_layers blocks_per_level",
        "model.layers_per_level",
    ),
    Synonym(
        "levels num_levels num_resolutions num_stages down_block_types",
        "model.channel_multipliers",
        "there is one level for each entry of",
    ),
    Synonym(
        "attention attn use_attention attention_resolutions attn_resolutions attention_layers",
        "model.attention_levels",
    ),
    Synonym(
        "num_heads n_heads n_head num_attention_heads num_query_heads",
        "model.heads model.head_channels",
        "the number of heads is the same in all levels, or follows from the width of each head; "
        "set",
    ),
    Synonym("head_dim head_size attention_head_dim num_head_channels", "model.head_channels"),
    Synonym("num_groups norm_num_groups group_norm_groups norm_groups", "model.groups"),
    Synonym(
        "gradient_checkpointing grad_checkpointing activation_checkpointing grad_checkpoint "
        "use_checkpoint checkpointing remat_policy rematerialization rematerialisation recompute",
        "model.remat",
    ),
    Synonym(
        "flash flash_attn use_flash_attention use_flash_attn attention_kernel "
        "attention_implementation xformers enable_xformers_memory_efficient_attention",
        "model.flash_attention",
    ),
    Synonym("scan scan_blocks use_scan", "model.scan_layers"),
    Synonym("act act_fn activation_fn nonlinearity act_type", "model.activation"),
    Synonym(
        "precision mixed_precision bf16 fp16 half half_precision amp compute_dtype use_bf16 "
        "use_fp16 train_dtype torch_dtype",
        "model.dtype",
    ),
    Synonym(
        "param_dtype weight_dtype params_dtype",
        "model.dtype",
        "trained parameters are always float32; the type of the computation is",
    ),
    Synonym(
        "temporal_downsample temporal_downsampling temporal_downsample_factor time_downsample "
        "temporal_compression temporal_down",
        "model.temporal_factors",
    ),
    Synonym(
        "temporal_layers num_temporal_layers temporal_blocks num_temporal_blocks temporal_depth "
        "motion_module motion_modules",
        "model.temporal_attention_blocks",
    ),
    Synonym(
        "dropout dropout_rate dropout_prob drop_rate attention_dropout lora_dropout",
        "diffusion.caption_dropout",
        "the network has no dropout; captions are left out of training by",
    ),
    # Text.
    Synonym(
        "tokenizer text_model text_encoder_name encoder_name clip_model t5 text_encoder_type",
        "text.encoder",
    ),
    Synonym(
        "max_tokens max_text_length max_prompt_length max_seq_len max_seq_length num_tokens "
        "max_sequence_length tokenizer_max_length model_max_length context_length text_length",
        "text.max_length",
    ),
    Synonym(
        "cross_attention_dim context_dim text_embed_dim text_embedding_dim caption_channels "
        "encoder_hidden_dim joint_attention_dim",
        "text.dim model.text_features",
    ),
    # Autoencoder.
    Synonym(
        "vae vae_path vae_dir vae_name_or_path pretrained_vae pretrained_vae_model_name_or_path "
        "autoencoder first_stage_model first_stage_config",
        "autoencoder.path",
    ),
    Synonym("kl_loss_weight kl_coeff kl_beta", "autoencoder.kl_weight"),
    Synonym("latent_channels vae_channels z_channels", "autoencoder.channels"),
    Synonym("vae_scale_factor vae_downsample_factor latent_factor", "autoencoder.factor"),
    # Objective.
    Synonym("noise_schedule beta_schedule noise_schedule_type schedule_type", "diffusion.schedule"),
    Synonym("beta_min beta_max", "diffusion.beta_start diffusion.beta_end"),
    Synonym(
        "rescale_betas_zero_snr zero_snr rescale_zero_terminal_snr enforce_zero_terminal_snr",
        "diffusion.zero_terminal_snr",
    ),
    Synonym(
        "sigma_min sigma_max logsnr_min logsnr_max",
        "diffusion.log_snr_min diffusion.log_snr_max",
        "noise schedules are bounded by their log-SNR; set",
    ),
    Synonym(
        "num_train_timesteps timesteps num_timesteps diffusion_steps num_diffusion_steps "
        "diffusion_timesteps",
        "sample.steps",
        "time is continuous in training; the number of sampling steps is",
    ),
    Synonym(
        "prediction_type parameterization parametrization pred_type predict objective target "
        "mean_type model_mean_type",
        "diffusion.prediction",
    ),
    Synonym(
        "loss loss_type loss_weight loss_weighting snr_weighting weighting_scheme",
        "diffusion.weighting",
    ),
    Synonym("snr_gamma min_snr gamma", "diffusion.min_snr_gamma"),
    Synonym("noise_shift timestep_shift time_shift flow_shift schedule_shift", "diffusion.shift"),
    Synonym(
        "timestep_sampling time_sampler timestep_sampler timestep_weighting t_distribution",
        "diffusion.time_sampling",
    ),
    Synonym("logit_mean", "diffusion.time_mean"),
    Synonym("logit_std", "diffusion.time_std"),
    Synonym(
        "cond_drop_prob uncond_prob caption_drop caption_drop_prob text_drop_prob text_dropout "
        "cfg_dropout class_dropout_prob prob_uncond proportion_empty_prompts",
        "diffusion.caption_dropout",
    ),
    # Conditioning.
    Synonym("i2v image_to_video first_frame image_conditioning", "masks.image"),
    Synonym("inpainting", "masks.inpaint"),
    Synonym("outpainting", "masks.outpaint"),
    Synonym(
        "sr_factor scale_factor super_resolution spatial_upsample upsample upsample_factor",
        "upscale.factor",
    ),
    Synonym("keyframe_stride temporal_upscale tsr_factor interpolation_factor", "tsr.stride"),
    Synonym(
        "noise_augmentation augmentation_level aug_level cond_aug max_noise_level low_res_noise",
        "upscale.max_augmentation tsr.max_augmentation",
    ),
    Synonym("lora_r r network_rank", "lora.rank"),
    Synonym("network_alpha", "lora.alpha"),
    # Sampling.
    Synonym(
        "cfg cfg_scale guidance guide_scale guidance_weight cfg_weight sample_scale "
        "unconditional_guidance_scale",
        "sample.guidance_scale",
    ),
    Synonym(
        "num_inference_steps inference_steps sampling_steps sampler_steps "
        "num_sampling_steps ddim_steps denoising_steps nfe sample_num_steps",
        "sample.steps",
    ),
    Synonym(
        "solver ode_solver sampling_method sample_method noise_scheduler inference_scheduler "
        "sampler_name sampler_type",
        "sample.sampler",
    ),
    Synonym(
        "thresholding dynamic_thresholding clip_sample clip_denoised clip_x0", "sample.threshold"
    ),
    Synonym("dynamic_thresholding_ratio", "sample.threshold_percentile"),
    Synonym("num_samples n_samples samples num_sample_clips", "sample.num data.num_clips"),
)

# By key: what other programs call its choices, and the choice. Names are in lower case.
CHOICES = {
    "data.source": {
        "clips": "clip video videos webdataset wds tfds tfrecord tfrecords array_record "
        "arrayrecord records record files file folder disk local custom ucf101 kinetics webvid",
        "moving_digits": "digits mnist moving_mnist moving-mnist",
        "motions": "motion shapes objects synthetic",
    },
    "data.motion": {
        "glide": "linear translate slide",
        "bounce": "bouncing",
        "rotate": "rotation spin",
        "fall": "falling gravity drop",
        "pendulum": "swing swinging",
        "wander": "wandering random random_walk",
        "turn": "turning swerve",
    },
    "diffusion.prediction": {
        "eps": "epsilon noise eps_prediction",
        "v": "velocity v_prediction v-prediction",
        "x0": "sample x_start start_x x clean data",
        "flow": "flow_prediction flow_matching rectified_flow u",
        "edm": "karras preconditioned",
    },
    "diffusion.schedule": {
        "cosine": "shifted_cosine cos",
        "linear": "log_linear loglinear",
        "iddpm": "squaredcos_cap_v2 improved_ddpm",
        "flow": "rectified_flow flow_matching straight rf",
    },
    "diffusion.weighting": {
        "uniform": "none simple constant mse",
        "min_snr": "snr min_snr_gamma min-snr minsnr",
    },
    "freeze": {
        "none": "nothing no off false",
        "spatial": "unet image t2i backbone",
    },
    "mesh.context_axis": {
        "rows": "row height spatial space",
        "frames": "frame time temporal",
    },
    "model.activation": {"silu": "swish"},
    "model.dtype": {
        "float32": "fp32 f32 single full float",
        "bfloat16": "bf16 float16 fp16 f16 half mixed",
    },
    "model.remat": {
        "none": "no off false",
        "full": "all everything true nothing_saveable",
        "dots": "dots_saveable minimal",
    },
    "model.temporal_resize_init": {
        "nearest": "identity",
        "he": "kaiming he_normal random",
    },
    "sample.sampler": {
        "ddim": "euler",
        "ancestral": "ddpm",
        "heun": "edm karras heun2",
        "unipc": "uni_pc unipc_multistep uni-pc",
        "dpmpp_2m": "dpm++ dpmpp dpm_solver++ dpmsolver++ dpmsolver dpm_solver dpm-solver++",
    },
    "sample.threshold": {
        "dynamic": "percentile imagen true",
        "static": "clip clamp",
        "none": "no off false",
    },
    "train.optimizer": {
        "adamw": "adam",
        "adamw_8bit": "adamw8bit adam8bit adam_8bit bnb_adamw8bit paged_adamw_8bit 8bit",
        "schedule_free": "schedulefree adamw_schedule_free schedule_free_adamw",
    },
    "train.schedule": {
        "cosine": "cos cosine_decay cosineannealing cosine_annealing",
        "constant": "constant_with_warmup fixed none flat",
        "wsd": "warmup_stable_decay trapezoidal trapezoid cooldown",
        "inverse_sqrt": "rsqrt invsqrt inv_sqrt inverse_square_root noam edm2",
    },
}
