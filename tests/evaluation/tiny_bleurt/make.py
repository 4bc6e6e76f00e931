"""Makes the tiny BLEURT checkpoint of this folder, and its scores by the package bleurt-pytorch.

The tests do not run it: that package needs transformers 4. In an environment of its own, run
`pip install torch 'transformers<5' sentencepiece bleurt-pytorch==0.0.1`, then `python make.py`.
"""

import json
from pathlib import Path

import torch
from bleurt_pytorch import BleurtConfig, BleurtForSequenceClassification
from bleurt_pytorch.bleurt.tokenization_bleurt_sp import BleurtSPTokenizer
from sentencepiece import SentencePieceTrainer

HERE = Path(__file__).parent
MAX_LEN, VOCAB_SIZE = 100, 50
SENTENCES = [
    "Today my sister buys the coat.",
    "Tonight, the lamp falls!",
    "In winter grandmother hides the spade from validation.",
    "A bird chirps by the window; the dog sleeps below the table.",
    "this is a random sentence",
    "Yes.",
]
PAIRS = [
    ("Today my sister buys the coat.", "Today my sister buys a coat."),
    ("Tonight, the lamp falls!", "The lamp falls tonight."),
    ("In winter grandmother hides.", ""),
    ("Yes.", "Yes."),
    ("Ünïcödé 手話 👋", "plain"),
    (" ".join(SENTENCES[:3]), " ".join(SENTENCES[2:5])),  # longer than MAX_LEN tokens
]

SentencePieceTrainer.train(
    sentence_iterator=iter(SENTENCES * 20),
    model_prefix=str(HERE / "spm"),
    vocab_size=VOCAB_SIZE,
    model_type="unigram",
    normalization_rule_name="identity",
    pad_id=0,
    unk_id=1,
    bos_id=-1,
    eos_id=-1,
    pad_piece="[PAD]",
    unk_piece="[UNK]",
    control_symbols=["[CLS]", "[SEP]", "[MASK]"],
)
(HERE / "spm.vocab").unlink()
torch.manual_seed(7)
config = BleurtConfig(
    vocab_size=VOCAB_SIZE,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=MAX_LEN,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.5,
)
model = BleurtForSequenceClassification(config).eval()
model.save_pretrained(HERE)
tokenizer = BleurtSPTokenizer(str(HERE / "spm.model"))
references, hypotheses = map(list, zip(*PAIRS, strict=True))
with torch.no_grad():
    batch = tokenizer(
        references, hypotheses, padding="longest", truncation=True, max_length=MAX_LEN, return_tensors="pt"
    )
    scores = model(**batch).logits.flatten().tolist()
content = [
    {"reference": reference, "hypothesis": hypothesis, "score": score}
    for (reference, hypothesis), score in zip(PAIRS, scores, strict=True)
]
(HERE / "scores.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
