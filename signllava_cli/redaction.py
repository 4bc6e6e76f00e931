"""Finds secrets (tokens, keys, passwords) in text: they are never printed, logged, or stored in a recipe."""

import os
import re

REDACTED = "***"
MIN_SECRET_LENGTH = 8
SECRET_VARIABLE = re.compile(r"(^|_)(TOKEN|API_?KEY|ACCESS_KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS)$", re.IGNORECASE)
# Each pattern has what stays as its first group, and the secret as its second. Tokens have the lengths of real ones:
# the folders sk-slovak-signs and hf_Llama3Instruct8B are none.
PATTERNS = (
    re.compile(
        r"((?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://)([^\s/?#@'\"]+)(?=@)", re.IGNORECASE
    ),  # https://user:token@host
    re.compile(r"([?&;](?:\w*token|\w*key|secret|password|signature|sig)=)([^\s&#;'\"]+)", re.IGNORECASE),
    re.compile(r"(\b(?:\w*api_?key|secret|password|passwd)=)([^\s&#;'\"]+)", re.IGNORECASE),
    re.compile(r"(\b(?:\w*_)?token=)([\w.~+/-]{8,})", re.IGNORECASE),
    re.compile(r"\b(Bearer\s+)([\w.~+/=-]{8,})", re.IGNORECASE),
    re.compile(r"()\b((?:hf|api_org)_[A-Za-z0-9]{24,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"),
    re.compile(r"()\b(sk-(?=[\w-]*[A-Z])(?=[\w-]*[0-9])[\w-]{32,})"),
)


def redact(text: str) -> str:
    """`text` with every secret replaced by `***`.

    >>> redact("https://me:hunter22@example.org/x?token=abc&n=1")
    'https://***@example.org/x?token=***&n=1'

    Secrets are: user and password of a URL, values named `token`, `key` and the like in a URL or an assignment,
    tokens of the Hugging Face hub, and the values of environment variables such as HF_TOKEN and WANDB_API_KEY.
    """
    for value in _secret_values():
        text = text.replace(value, REDACTED)
    for pattern in PATTERNS:
        text = pattern.sub(lambda match: match[1] + REDACTED, text)
    return text


def has_secret(text: str) -> bool:
    """Whether `text` contains a secret."""
    return redact(text) != text


def _secret_values() -> list[str]:
    """The values of environment variables whose names say that they are secret, the longest first."""
    values = {value for name, value in os.environ.items() if SECRET_VARIABLE.search(name)}
    return sorted((value for value in values if len(value) >= MIN_SECRET_LENGTH), key=len, reverse=True)
