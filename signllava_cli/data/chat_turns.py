"""The text of a chat template around the user's words and the answer.

The template is rendered up to the point where the LLM answers, and as a whole dialogue. They may differ: a prompt may
open a block of reasoning that no dialogue shows, a dialogue may name a channel that the LLM would write itself. The
answer stands where a dialogue has it. What a template prints must not change from day to day, so its clock is fixed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from signllava_cli.console import info
from signllava_cli.data.text_encoder import TextEncoder
from signllava_cli.errors import UserError
from signllava_cli.recipe import PLACEHOLDER, Tasks

# What is given to every template that has the variable, unless the recipe says otherwise.
TEMPLATE_DEFAULTS = {"enable_thinking": False, "date_string": "26 Jul 2024"}
DATE_FORMAT = "%d %b %Y"  # of date_string in the templates of Llama 3
OWN_VARIABLES = {"messages", "add_generation_prompt", "chat_template", "tokenize"}
CLOCK = "strftime_now"  # the function of transformers with which a template prints today's date
MARKER = re.compile(r"(<[^<>]+>|\[[^\[\]]+\])")  # what looks like a control token, in any tokenizer
Turns = list[dict[str, str]]


@dataclass(frozen=True)
class ChatTurns:
    """The chat template's text before and after the user's turn, and the token that ends the assistant's turn.

    `after`: up to the answer. `before_end`: the text between the answer and `end_of_turn`.

    Stored in every checkpoint: a template may be edited, but generation must use the prompt of training.
    """

    before: str
    after: str
    end_of_turn: int
    before_end: str = ""


def render_chat_turns(tokenizer: Any, tasks: Tasks) -> ChatTurns:
    """The turns of the tokenizer's chat template with the system text of `tasks`.

    A template without a system turn gets the system text at the beginning of the user's turn.

    Raises:
        UserError: there is no chat template; it fails; its prompt and its dialogue contradict each other; it has no
            end of turn; or `tasks.chat_template_kwargs` names a variable that it does not have, or one that is set
            here.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise UserError(f"The tokenizer of {name} has no chat template; set llm.path to an instruct LLM.")
    render = _renderer(tokenizer, tasks)
    user = {"role": "user", "content": PLACEHOLDER}
    folded = {"role": "user", "content": "\n\n".join([*filter(None, [tasks.system]), PLACEHOLDER])}
    try:
        before, after, end = _turn_texts(render, [{"role": "system", "content": tasks.system}, user], tasks.system)
    except _TemplateError as error:
        try:
            before, after, end = _turn_texts(render, [folded], tasks.system)
        except _TemplateError as folded_error:
            raise UserError(
                f"The chat template of {name} {folded_error}; set llm.path to another instruct LLM."
            ) from None
        info(f"tasks.system begins the user's turn, because the chat template of {name} {error}")
    encoder = TextEncoder(tokenizer)
    match = encoder.control.search(end)
    if match is None:
        raise UserError(
            f"The chat template of {name} does not end the assistant's turn with a special token, so generation "
            "could not stop; set llm.path to another instruct LLM."
        )
    return ChatTurns(before, after, encoder.control_id(match[0]), end[: match.start()])


class _TemplateError(Exception):
    """What is wrong with a template, as the end of a sentence about it."""


def _renderer(tokenizer: Any, tasks: Tasks) -> Callable[[Turns, bool], str]:
    """A function that renders turns, with the start of an answer if the second argument is true."""
    name = tokenizer.name_or_path
    try:
        template = str(tokenizer.get_chat_template())
    except ValueError as error:  # several templates, none of which is the default
        raise UserError(f"The chat template of {name}: {error}; set llm.path to another instruct LLM.") from None
    variables = {**TEMPLATE_DEFAULTS, **tasks.chat_template_kwargs}
    has_clock = CLOCK in template
    unused = {key for key in variables if not re.search(rf"\b{re.escape(key)}\b", template)}
    if own := sorted(OWN_VARIABLES & tasks.chat_template_kwargs.keys()):
        raise UserError(f"tasks.chat_template_kwargs.{own[0]}: signllava sets this variable itself; remove it.")
    if unknown := sorted(unused & tasks.chat_template_kwargs.keys() - ({"date_string"} if has_clock else set())):
        raise UserError(
            f"tasks.chat_template_kwargs.{unknown[0]}: the chat template of {name} has no such variable; remove it."
        )
    if has_clock:
        template = _fixed_clock(str(variables["date_string"])) + template
    variables = {key: value for key, value in variables.items() if key not in unused}

    def render(turns: Turns, add_generation_prompt: bool) -> str:
        return str(
            tokenizer.apply_chat_template(
                turns,
                chat_template=template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **variables,
            )
        )

    return render


def _fixed_clock(date: str) -> str:
    """A Jinja macro that stands in for transformers' `strftime_now`, at midnight of `date`."""
    try:
        time = datetime.strptime(date, DATE_FORMAT)
    except ValueError:
        raise UserError(
            f"tasks.chat_template_kwargs.date_string: {date!r} is not a date like 26 Jul 2024, and the chat template "
            "prints the date in a form of its own."
        ) from None
    directives = [*"aAbBcdHIjmMpSUwWxXyYZ", "-d", "-m"]
    replaced = "".join(f".replace('%{directive}', {time.strftime('%' + directive)!r})" for directive in directives)
    return f"{{% macro {CLOCK}(format) %}}{{{{ format{replaced} }}}}{{% endmacro +%}}"


def _turn_texts(render: Callable[[Turns, bool], str], turns: Turns, system: str) -> tuple[str, str, str]:
    """The text before the user's words, between them and the answer, and after the answer."""
    try:
        prompt = render(turns, True)
        dialogue = render([*turns, {"role": "assistant", "content": PLACEHOLDER}], False)
    except Exception as error:  # a template is a program that may raise anything
        raise _TemplateError(f"fails: {' '.join(str(error).split())}") from None
    prompt_parts, dialogue_parts = prompt.split(PLACEHOLDER), dialogue.split(PLACEHOLDER)
    if len(prompt_parts) != 2 or len(dialogue_parts) != 3:
        raise _TemplateError("does not show the text of each turn once")
    if system.strip() not in prompt_parts[0] or prompt_parts[0] != dialogue_parts[0]:
        raise _TemplateError("does not show the system turn in every dialogue")
    return prompt_parts[0], _before_answer(prompt_parts[1], dialogue_parts[1]), dialogue_parts[2]


def _before_answer(prompt: str, dialogue: str) -> str:
    """The text between the user's words and the answer, of a prompt and of a whole dialogue.

    It is the dialogue's, except where the prompt adds a block of reasoning and closes it: an LLM that reasons
    answers right behind it.
    """
    if prompt.startswith(dialogue):
        is_closed = len(MARKER.findall(prompt[len(dialogue) :])) > 1
        return prompt if is_closed else dialogue
    if dialogue.startswith(prompt):
        return dialogue
    prompt_parts, dialogue_parts = MARKER.split(prompt), MARKER.split(dialogue)
    while prompt_parts and dialogue_parts and prompt_parts[0] == dialogue_parts[0]:
        del prompt_parts[0], dialogue_parts[0]
    if any(part.strip() and not MARKER.fullmatch(part) for part in (*prompt_parts, *dialogue_parts)):
        raise _TemplateError(
            f"begins an answer in two ways, {prompt[-60:]!r} in a prompt and {dialogue[-60:]!r} in a dialogue"
        )
    return dialogue
