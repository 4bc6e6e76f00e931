"""Valid text files of every format that the package reads, from which the fuzz tests make bad ones."""

# ruff: noqa: E501 (lines of files)
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def as_json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def as_lines(rows: Sequence[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


ANNOTATION: dict[str, dict[str, Any]] = {
    "rec1": {
        "clip_order": ["a", "b"],
        "a": {
            "translation": "the garden is big",
            "paraphrases": ["a big garden"],
            "keywords": ["garden"],
            "start": 0.5,
            "end": 2.25,
            "source": {"video_id": "v1"},
            "context_bound": {"needs": "window", "reading": "bank", "others": ["shore"]},
        },
        "b": {"translation": "my sister visits", "paraphrases": [], "keywords": ["sister"]},
    },
    "rec2": {"clip_order": ["c"], "c": {"translation": "on monday we eat bread"}},
}
PREDICTIONS = [
    {
        "recording": recording,
        "clip": clip,
        "position": position,
        "task": "translation",
        "reference": text,
        "hypothesis": text.replace("the", "a"),
        "context": ["one sentence"],
        "context_source": "gold",
        "score": -0.5,
        "n_best": [["x", -1.0]],
        "context_bound": {"needs": "window", "reading": "bank", "others": ["shore"]},
    }
    for recording, clip, position, text in (
        ("rec1", "a", 0, "the garden is big"),
        ("rec1", "b", 1, "my sister visits"),
        ("rec2", "c", 0, "on monday we eat bread"),
    )
]
META = {
    "format": "signllava predictions 1",
    "checkpoint": "runs/x/step-000200",
    "split": "dev",
    "clips": 3,
    "clips_hash": sha256(b"rec1/a\nrec1/b\nrec2/c").hexdigest()[:16],
    "decoding": {"num_beams": 5, "context_source": "gold", "temperature": None},
    "seconds": 1.5,
}
SIGN_LLAVA = {
    recording: {
        name: clip if name == "clip_order" else {**clip, "hypothesis": "a garden", "reference": clip["translation"]}
        for name, clip in clips.items()
    }
    for recording, clips in ANNOTATION.items()
}
CSV_SYSTEM = b'uid,text\nrec1/a,a garden\nb,"my ""sister"", visits"\nrec2/c,we eat\n'
HOW2SIGN = (
    b"VIDEO_ID\tVIDEO_NAME\tSENTENCE_ID\tSENTENCE_NAME\tSTART_REALIGNED\tEND_REALIGNED\tSENTENCE\tSTATE\tKEYWORDS\t"
    b'GPT_Rephrase1\nv1\tv1-5-rgb\t0\tv1_0-5\t0.33\t2.02\tHi, I\'m here.\tOK\t"hi, here"\tHello.\n'
    b'v1\tv1-5-rgb\t1\tv1_1-5\t2.02\t4.5\t"We eat ""bread"""\tBAD\t\t<none>\n'
)
YOUTUBE_ASL = (
    b"ClipID,Beg(s),Dur(s),YouTubeID,StartFrame,EndFrame,FPS,Caption,GPT_Rephrase1,Keywords\n"
    b'id1.000010-000050,0.4,1.6,id1,10,50,25,"Hello, you",Hi,"hello, you"\nid1.000060-000090,2.4,1.2,id1,60,90,25,Bye,,\n'
)
YOUTUBE_ASL_TSV = b"0.4\t1.6\tid1\t10\t50\t25\tHello you\tOK\thello\n2.4\t1.2\tid1\t60\t90\t25\tBye\tBAD\t\n"
VTT = (
    b"WEBVTT\n\nNOTE a note\n\n1\n00:00:01.000 --> 00:00:02.500 align:start\n<b>Hello</b> &amp; you\n\n"
    b"01:02.000 --> 01:04.000\nBye\nbye\n"
)
OPENASL = (
    b"vid\tyid\tstart\tend\traw-text\ttokenized-text\tgloss\tsplit\n"
    b'id1-0\tid1\t00:00:01.2\t00:00:03.4\tHello "you"\thello\tHELLO\tvalid\nid1-1\tid1\t3.5\t4\tBye\tbye\tBYE\tvalid\n'
)
PHOENIX = (
    b"name|video|start|end|speaker|orth|translation\n01April_2010_Thursday-1|x/1/*.png|-1|-1|Signer04|MORGEN|und morgen\n"
    b"01April_2010_Thursday-2|x/1/*.png|-1|-1|Signer04|REGEN|regen im norden\n"
)
TABLE = (
    b"uid,recording,start,duration,order,text,keywords,other,split\na,r1,0.5,1.5,1,the garden,garden,v1,dev\n"
    b'b,r1,00:00:02.5,1,2,"we, eat",eat,v2,dev\n'
)
TABLE_WITHOUT_NAMES = TABLE.replace(b"uid,", b"").replace(b"a,r1", b"r1").replace(b"b,r1", b"r1")
TABLE_OPTIONS = (
    *("--recording", "recording", "--start", "start", "--duration", "duration", "--order", "order"),
    *("--keywords", "keywords", "--paraphrases", "other", "--split-column", "split", "--keep", "other"),
)
SIGN_LLAVA_YAML = tuple(
    text.encode()
    for text in (
        "ModelArguments:\n  model_name_or_path: some/llama\nTrainingArguments:\n  output_dir: old/out\n"
        "  per_device_train_batch_size: 3\n  gradient_accumulation_steps: 2\n  learning_rate: 5e-4\n  warmup_ratio: 0.03\n"
        "  num_train_epochs: 6\n  eval_steps: 7\n  bits: 4\n  lora_enable: True\n  lora_r: 8\n  seed: 42\n  report_to: wandb\n"
        "SignDataArguments:\n  context_window_size: 3\n  prelude_window_size: 1\n  data_dir: /data/H2S\n"
        "  annotation_path:\n    train: annotation.train.json\n    dev: annotation.val.json\n  visual_features:\n"
        "    mae:\n      enable_input: True\n      train: mae/metadata_mae.train.json\n      dev: mae/m.val.json\n"
        "    dino:\n      enable_input: False\nSignModelArguments:\n  projectors:\n    mae:\n      dim: 768\n"
        "      projector_type: mlp2x_gelu\n      pretrained_projector_ckpt: x.pt\nSignMultiTaskArguments:\n"
        "  translation:\n    enable: True\n    sample_weight: 0.7\n  is_reversed:\n    sample_weight: 1\n",
        "GenerateArguments:\n  num_beams: 5\n  max_new_tokens: 128\n  do_sample: False\nSignDataArguments:\n  data_dir: d\n"
        "  prepared_predicted_context: False\n  on_the_fly_predicted_context: True\n  annotation_path: annotation.test.json\n",
    )
)
CHECKPOINT_CONFIG = {
    "format": "signllava-checkpoint-1",
    "turns": {"before": "<|begin|>", "after": "<|end|>", "end_of_turn": 3},
    "data": "0" * 64,
    "versions": {"signllava": "1.0"},
    "stage": "pretrain",
    "step": 200,
    "llm": {"path": "some/llama", "revision": None, "hidden_size": 128},
}
TRAIN_STATE = {"step": 3, "clips": 12, "loss_mean": 0.5, "best_score": None, "eval_pending": False, "seconds": 1.25}
METRICS = [
    {"step": 1, "loss": 2.5, "lr": 1e-3, "grad_norm": 1.0},
    {"step": 2, "dev_loss": 2.0, "dev_bleu": 3.5},
    {"step": 3, "loss": 2.25, "worst_clips": ["a"]},
]
PROFILE = (ROOT / "accelerate_configs/zero2.yaml").read_bytes()
PLAN = {
    "fingerprint": {
        "sources": ["features"], "format": "npy", "pattern": "{clip}.npy", "key": None, "shard_mb": 10, "layout": None,
        "clips": "0" * 64, "files": "0" * 64,
    },
    "width": 768, "layout": None, "shard_of": {"rec1": 0, "rec2": 1},
}  # fmt: skip
EXTRACT_REPORT = {
    "several_people": ["rec1/a"], "jumps": [], "rotated": ["rec2/c"],
    "recordings": {"rec1": {"share": {"left_hand": 0.5, "right_hand": 0.01}}},
}  # fmt: skip
POINTS = [[1.5, 2.5, 0.0]]
KEYPOINTS = {
    "keypoints": [
        {"pose_landmarks": POINTS * 33, "right_hand_landmarks": POINTS * 21, "left_hand_landmarks": [], "face_landmarks": None},
        None,
    ]
}  # fmt: skip
SCORES = {"results": [{"file": "x", "scores": {"bleu": 1.5}}], "signatures": {}, "versions": {}}
