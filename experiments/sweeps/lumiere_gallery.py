"""What does Lumiere's recipe make in small?

    make lumiere

Or by hand:

    python experiments/fetch_handwriting.py runs/handwriting.npz
    stunet sweep --config lumiere_gallery --workdir runs/lumiere --jobs 2

The networks are those of experiments/lumiere_mini.py. The steps after them make a picture for each
task of Lumiere (arXiv 2401.12945, figure 1), all with seed 0, and show them on one page,
runs/lumiere/gallery.html. The weights of four networks, which do all tasks together, are written
into runs/lumiere/networks. `--config lumiere_gallery:gpu` is a larger size for one GPU, and
`--config lumiere_gallery:smoke` runs through everything in minutes, for nothing to look at.

Hardware and time: two and a quarter hours on two CPU cores, added up from stages that ran beside
other jobs.

Expected result: of 96 clips of `base`, 93% show the digit of their caption, 72% go the right way
and 57% have the right speed, while digits change their shape as they move. docs/how-to/lumiere.md
has the table and the page.
"""

from stunet import configs
from stunet.sweep.members import Member, Step, replace

# Member -> member whose weights it begins with.
MEMBERS = {
    "text_to_image": "",
    "base": "text_to_image",
    "masks": "base",
    "upscale": "",
    "style_neon": "text_to_image",
    "style_paper": "text_to_image",
}
PICTURES = (
    "a red 0 on grey",
    "a yellow 1 on blue stripes",
    "a green 2 on purple dots",
    "a blue 3 on brown checks",
    "a pink 4 on green",
    "a white 5 on red stripes",
)
CLIPS = (
    "a red 6 moving right, on grey",
    "a yellow 7 moving left, fast, on blue stripes",
    "a green 8 moving up, on purple dots",
    "a blue 9 moving down, slowly, on brown checks",
    "a pink 0 moving right, fast, on green",
    "a white 3 moving left, slowly, on red stripes",
)
# What is made of held-out clips, by their number. In the first two, the first prompt is the clip's
# own caption. Boxes are top, left, height and width, in pixels of a frame of 32x32.
CONTINUED = {
    3: ("a pink 6 moving down, on green stripes", "a pink 6 moving left, fast, on green stripes"),
    4: ("a red 6 moving left, slowly, on green", "a red 6 moving up, fast, on green"),
}
# This box hides the digit in all frames.
PAINTED = {
    8: ("4,0,28,32", "a white 7 moving left, slowly, on brown", "a blue 5 moving right, on brown")
}
# The digit lies in rows 7 to 30, and moves there.
ANIMATED = {
    9: (
        "6,0,26,32",
        "a green 2 moving left, on green stripes",
        "a green 2 moving right, on green stripes",
    )
}
EDITED = {5: ("a blue 3 moving right, slowly, on purple", "a yellow 8 moving right, on brown dots")}
ALPHAS = ("0", "0.5", "0.75", "1")
HELD_OUT = 10
# Networks that do all tasks together: the one with masks also makes clips from text alone.
EXPORTED = ("masks", "upscale", "style_neon", "style_paper")


def get_sweep(size="cpu"):
    entries = []
    for name, start in MEMBERS.items():
        config = configs.start_from(f"lumiere_mini:{name},{size}")
        begin = {"train.init_from": f"{{sweep}}/{start}"} if start else {}
        after = (start,) if start else ()
        group = name.replace("_", " ")  # They learn different things: the report compares none.
        entries.append(Member(name, replace(config, begin), group, after=after))
    scale = entries[1].config.data.height / 32
    return entries + _steps(scale)


def _steps(scale):
    """The data, a step for each picture, and the page.

    Args:
        scale: height of a frame, as a multiple of 32 pixels.
    """
    clips = "{sweep}/base/config.json"
    steps = [
        _step("data_train", "base", "data", "--config", clips, "--num", "6"),
        _step("data_val", "base", "data", "--config", clips, "--split", "val", "--num", HELD_OUT),
    ]

    def sample(name, task, run, *options, prompts, after=()):
        words = ["sample", task, "--workdir", f"{{sweep}}/{run}", *options]
        words += [word for prompt in prompts for word in ("--prompt", prompt)]
        steps.append(_step(name, run, *words, "--arrays", "--name", name, after=after))

    def held_out(number, end):
        return f"{{sweep}}/gallery/data_val/val_{number}.{end}"

    def box(corners):
        return ",".join(str(round(int(number) * scale)) for number in corners.split(","))

    sample("text_to_image_samples", "text", "text_to_image", prompts=PICTURES)
    sample("text", "text", "base", prompts=CLIPS)
    for number, prompts in CONTINUED.items():
        options = ("--image", held_out(number, "png"))
        sample(f"image_{number}", "image", "masks", *options, prompts=prompts, after=("data_val",))
    for task, flag, end, table in (
        ("inpaint", "--video", "mp4", PAINTED),
        ("cinemagraph", "--image", "png", ANIMATED),
    ):
        for number, (corners, *prompts) in table.items():
            options = (flag, held_out(number, end), "--box", box(corners))
            name, after = f"{task}_{number}", ("data_val",)
            sample(name, task, "masks", *options, prompts=prompts, after=after)
    for number, prompts in EDITED.items():
        options = ("--video", held_out(number, "mp4"), "--strength", "0.8")
        sample(f"video_{number}", "video", "base", *options, prompts=prompts, after=("data_val",))
    for look in ("neon", "paper"):
        style = f"style_{look}"
        options = ["--style-workdir", f"{{sweep}}/{style}"]
        options += [word for alpha in ALPHAS for word in ("--alpha", alpha)]
        sample(f"{style}_clips", "style", "base", *options, prompts=CLIPS[:2], after=(style,))
    options = ("--base", "{sweep}/base")
    sample("large", "upscale", "upscale", *options, prompts=CLIPS[:3], after=("base",))
    made = tuple(step.name for step in steps)
    steps += [_export(name) for name in EXPORTED]
    page = ("gallery", "{sweep}/gallery", "--out", "{sweep}/gallery.html")
    page += ("--title", "Lumiere in small", "--note", NOTE)
    return [*steps, Step("page", page, made, "gallery.html")]


def _export(name):
    """Returns a step that writes the averaged weights of a network, to pass them on."""
    out = f"networks/{name}"
    words = ("export", "--workdir", f"{{sweep}}/{name}", "--out", f"{{sweep}}/{out}")
    words += ("--format", "safetensors", "--dtype", "bfloat16", "--public")
    return Step(f"export_{name}", words, (name,), f"{out}/params.safetensors")


NOTE = (
    "Six small networks, trained on handwritten digits by the command make lumiere, made all clips "
    "on this page. Every sample has the seed 0: none was chosen by hand."
)


def _step(name, run, *words, after=()):
    """Returns a step that writes NAME.npz, or SPLIT.npz for data, into gallery/NAME/."""
    out = f"gallery/{name}"
    made = name.removeprefix("data_") if name.startswith("data_") else name
    command = (*map(str, words), "--out", f"{{sweep}}/{out}")
    return Step(name, command, (run, *after), f"{out}/{made}.npz")
