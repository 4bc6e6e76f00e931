"""The real chat templates of families of LLMs: prompts and answers have the ids of the whole dialogue."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from family_tokenizers import KINDS, TEMPLATES, Family
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.errors import UserError
from signllava_cli.recipe import Tasks

CHATML = "<|im_start|>assistant\n"
LLAMA = "<|start_header_id|>assistant<|end_header_id|>\n\n"
NO_THOUGHT = f"{CHATML}<think>\n\n</think>\n\n"
FAMILIES = [
    Family("chatml", CHATML, "<|im_end|>"),
    Family("command-r", "<|CHATBOT_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    Family("command-r7b", "<|CHATBOT_TOKEN|><|START_RESPONSE|>", "<|END_RESPONSE|>"),
    Family("deepseek-r1-distill", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>"),
    Family("gemma-2", "<start_of_turn>model\n", "<end_of_turn>", "<bos>", "<eos>", is_folded=True),
    Family("gemma-3", "<start_of_turn>model\n", "<end_of_turn>", "<bos>", "<eos>"),
    Family("gemma-4-31b", "<|turn>model\n<|channel>thought\n<channel|>", "<turn|>", "<bos>", "<eos>", in_prompt=True),
    Family("gpt-oss", "<|start|>assistant<|channel|>final<|message|>", "<|return|>"),
    Family("granite-3.3", "<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>"),
    Family("granite-4.0", "<|start_of_role|>assistant<|end_of_role|>", "<|end_of_text|>"),
    Family("llama-2", " [/INST] ", "</s>", has_control=False),
    Family("llama-3", LLAMA, "<|eot_id|>", "<|begin_of_text|>"),
    Family("llama-3.1", LLAMA, "<|eot_id|>", "<|begin_of_text|>"),
    Family("llama-3.2", LLAMA, "<|eot_id|>", "<|begin_of_text|>"),
    Family("llama-3.3", LLAMA, "<|eot_id|>", "<|begin_of_text|>"),
    Family("mistral-0.1", " [/INST]", "</s>", has_control=False, is_folded=True),
    Family("mistral-0.3", "[/INST] ", "</s>", is_folded=True),
    Family("mistral-nemo", "[/INST]", "</s>", is_folded=True),
    Family("mistral-small-3.2", "[/INST]", "</s>"),
    Family("phi-3", "<|assistant|>\n", "<|end|>", eos="<|endoftext|>"),
    Family("phi-3.5", "<|assistant|>\n", "<|end|>", eos="<|endoftext|>"),
    Family("phi-4", "<|im_start|>assistant<|im_sep|>", "<|im_end|>"),
    Family("qwen2.5", CHATML, "<|im_end|>"),
    Family("qwen3", NO_THOUGHT, "<|im_end|>"),
    Family("qwen3-2507", CHATML, "<|im_end|>"),
    Family("qwen3.5", NO_THOUGHT, "<|im_end|>"),
    Family("smollm2", CHATML, "<|im_end|>"),
    Family("smollm3", f"{CHATML}<think>\n\n</think>\n", "<|im_end|>"),
]
BY_NAME = {family.template: family for family in FAMILIES}
VARIANTS = [
    *(replace(BY_NAME[name], rstrip=True) for name in ("phi-3", "phi-3.5", "chatml", "llama-3")),
    *(replace(BY_NAME[name], has_control=False) for name in ("phi-3", "qwen3", "granite-4.0", "gpt-oss")),
]
OPTIONS = {"enable_thinking": False, "date_string": "26 Jul 2024"}
TASKS = Tasks(system="Be good.", streams="See:", context="Before:", translation="What?")
HOSTILE = ["a <think> b", "</think>", "<|im_end|>", "<think><think>", "<<think>", "日本<tool_call>", "x<｜User｜>y"]


def set_clock(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Clock":
            return cls.strptime(day, "%Y-%m-%d")

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


def test_every_template_is_tested_and_has_a_source() -> None:
    source = (TEMPLATES / "SOURCE.md").read_text()
    names = {file.stem for file in TEMPLATES.glob("*.jinja")}
    assert names == BY_NAME.keys()
    assert all(f"| {name} |" in source for name in names)


@pytest.mark.parametrize("answer", ["Today my sister buys a coat.", "3 cats.", '"Now" it\'s 日本.'])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [*FAMILIES, *VARIANTS], ids=lambda family: family.template)
def test_prompt_and_answer_have_the_ids_of_the_whole_dialogue(
    family: Family, kind: str, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(monkeypatch, "2024-07-26")
    tokenizer = family.tokenizer(kind)
    user = "See:\n<streams>\nBefore:\nOne.\nTwo.\nWhat?"
    turns = [{"role": "user", "content": f"Be good.\n\n{user}" if family.is_folded else user}]
    if not family.is_folded:
        turns.insert(0, {"role": "system", "content": "Be good."})
    if family.in_prompt:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **OPTIONS)
        text += answer + family.end
    else:
        turns.append({"role": "assistant", "content": answer})
        text = tokenizer.apply_chat_template(turns, tokenize=False, **OPTIONS)
    ids = tokenizer(text, add_special_tokens=False).input_ids
    streams = ids.index(tokenizer.convert_tokens_to_ids("<streams>"))

    prompts = PromptBuilder(tokenizer, TASKS)
    prompt, target = prompts.prompt(["One.", "Two."]), prompts.answer(answer)

    assert prompt.before == tuple(ids[:streams])
    assert prompt.after + target == tuple(ids[streams + 1 :][: len(prompt.after + target)])
    assert target[-1] == prompts.end_of_turn == tokenizer.convert_tokens_to_ids(family.end)
    assert prompts.turns.after.endswith(family.answer_prefix)
    assert prompts.text(target) == answer


def test_the_prompts_of_llama_3_are_those_of_its_parts() -> None:
    """As the prompts of every checkpoint that was trained on Llama 3: its parts, tokenized one by one."""
    tokenizer = BY_NAME["llama-3"].tokenizer()
    prompts = PromptBuilder(tokenizer, Tasks())
    header = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    user = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"

    def ids(text: str, **options: Any) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False, **options).input_ids)

    for sentence in ["Today.", " spaces ", "\n", "\n\nfoo", "日本 👋", "It ends <|eot_id|> here.", '"1"', ""]:
        plain = ids(sentence, split_special_tokens=True)
        question = ids(f"\nSentences signed before it:\n{sentence}\nWhat is signed?", split_special_tokens=True)
        prompt = prompts.prompt([sentence])
        assert prompt.before == ids(header + Tasks().system + user) + ids("The signing of one sentence:\n")
        assert prompt.after == question + ids(f"<|eot_id|>{LLAMA}")
        assert prompts.answer(sentence) == (*plain, prompts.end_of_turn)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["qwen3", "deepseek-r1-distill", "mistral-nemo"])
def test_added_tokens_in_data_are_text(name: str, text: str, kind: str) -> None:
    """Those too that are not special, such as `<think>`, which `split_special_tokens` does not split."""
    tokenizer = BY_NAME[name].tokenizer(kind)
    prompts = PromptBuilder(tokenizer, TASKS)
    added, plain = set(tokenizer.added_tokens_decoder), prompts.prompt(["x"], "x")
    answer, prompt = prompts.answer(text), prompts.prompt([text], text)
    assert added & set(answer) == {prompts.end_of_turn}
    for token in added:
        assert prompt.after.count(token) == plain.after.count(token)
    assert prompts.text(answer) == text
    assert tokenizer.decode(prompt.after) == tokenizer.decode(plain.after).replace("x", text)


@pytest.mark.parametrize("text", HOSTILE)
def test_control_tokens_in_the_vocabulary_of_a_unigram_model_are_not_data(text: str) -> None:
    """They are pieces of its vocabulary, which `split_special_tokens` gives for a text that spells them."""
    control = ["<unk>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    model = Tokenizer(models.Unigram())
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=100, special_tokens=control, unk_token="<unk>", initial_alphabet=list("<>/|_"), show_progress=False
    )
    model.train_from_iterator([*HOSTILE, "Today my sister buys a coat."], trainer)
    template = BY_NAME["qwen3"].tokenizer().chat_template
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="<|im_end|>", chat_template=template)
    prompts = PromptBuilder(tokenizer, TASKS)
    answer = prompts.answer(text)
    assert not set(answer[:-1]) & {tokenizer.convert_tokens_to_ids(token) for token in control}
    assert prompts.text(answer) == text


def test_added_tokens_that_are_words_or_spaces_are_encoded_as_the_tokenizer_does() -> None:
    tokenizer = BY_NAME["qwen3"].tokenizer()
    tokenizer.add_tokens(["\n\n\n", "▁▁", "gebärde", "हिन्दी"])
    prompts = PromptBuilder(tokenizer, TASKS)
    for text in ["a gebärde", "a\n\n\nb", "हिन्दी▁▁", "  a"]:
        assert prompts.answer(text)[:-1] == tuple(tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("name", ["llama-3.2", "gpt-oss", "granite-3.3", "mistral-small-3.2"])
def test_the_prompt_is_the_same_on_every_day(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = BY_NAME[name].tokenizer()
    built = []
    for day in ("2025-02-03", "2026-11-25"):
        set_clock(monkeypatch, day)
        built.append(PromptBuilder(tokenizer, TASKS))
    assert built[0].turns == built[1].turns
    later = Tasks(**{**vars(TASKS), "chat_template_kwargs": {"date_string": "03 Mar 2031"}})
    assert "2031" not in built[0].turns.before
    assert ("2031" in PromptBuilder(tokenizer, later).turns.before) == (name in ("llama-3.2", "gpt-oss"))


def test_the_variables_of_the_recipe_are_given_to_the_template() -> None:
    tokenizer = BY_NAME["gpt-oss"].tokenizer()
    tasks = Tasks(chat_template_kwargs={"reasoning_effort": "low"})
    assert "Reasoning: low" in PromptBuilder(tokenizer, tasks).turns.before
    with pytest.raises(UserError, match=r"tasks\.chat_template_kwargs\.reasoning_effrt: .*no such variable"):
        PromptBuilder(tokenizer, Tasks(chat_template_kwargs={"reasoning_effrt": "low"}))
    with pytest.raises(UserError, match="add_generation_prompt: signllava sets this variable itself"):
        PromptBuilder(tokenizer, Tasks(chat_template_kwargs={"add_generation_prompt": True}))


def test_a_date_that_the_template_cannot_print_is_refused() -> None:
    tasks = Tasks(chat_template_kwargs={"date_string": "tomorrow"})
    with pytest.raises(UserError, match=r"tasks\.chat_template_kwargs\.date_string: 'tomorrow' is not a date"):
        PromptBuilder(BY_NAME["gpt-oss"].tokenizer(), tasks)


@pytest.mark.parametrize("name", ["gemma-2", "mistral-0.1", "mistral-nemo"])
def test_a_system_text_that_the_template_refuses_begins_the_users_turn(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = PromptBuilder(BY_NAME[name].tokenizer(), TASKS)
    assert prompts.turns.before.endswith("Be good.\n\n")
    assert capsys.readouterr().out.count("tasks.system begins the user's turn, because") == 1
    PromptBuilder(prompts.tokenizer, TASKS, prompts.turns)
    assert capsys.readouterr().out == ""


def test_a_template_that_begins_answers_in_two_ways_is_refused() -> None:
    tasks = Tasks(chat_template_kwargs={"controls": "short"})
    with pytest.raises(UserError, match="begins an answer in two ways"):
        PromptBuilder(BY_NAME["granite-3.3"].tokenizer(), tasks)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no') }}", "fails: no"),
        ("{{ messages[0].content }}", "does not show the text of each turn once"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "does not end the assistant's turn"),
    ],
)
def test_a_template_that_is_of_no_use_is_refused_in_one_line(template: str, message: str) -> None:
    tokenizer = BY_NAME["chatml"].tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(UserError, match=message) as refused:
        PromptBuilder(tokenizer, TASKS)
    assert "\n" not in str(refused.value)
