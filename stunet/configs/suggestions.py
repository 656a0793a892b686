"""Finds the key or choice that a user meant, where a config has a wrong one.

A suggestion means the same as the wrong name, shares a word with it, or is spelt like it.
"""

from collections.abc import Sequence

from stunet.configs.schema import RENAMED, fields
from stunet.configs.synonyms import CHOICES, SYNONYMS, Synonym
from stunet.errors import UserError, closest

_KEYS = tuple(key for key, _ in fields())
_SYNONYMS = {name: synonym for synonym in SYNONYMS for name in synonym.names.split()}

# Longer lists of keys help nobody.
_MOST_KEYS = 4
# Shorter words, such as "max", are in the names of too many keys.
_LEAST_LETTERS = 4


def unknown_key(key: str) -> UserError:
    """Returns the error for a key that does not exist; it says what the user may have meant.

    Args:
        key: the key as the user wrote it, such as "train.lr".
    """
    if key in RENAMED:
        return UserError(f"'{key}' is now called '{RENAMED[key]}'; use that name")
    if in_group := [known for known in _KEYS if known.startswith(f"{key}.")]:
        return UserError(f"'{key}' is a group of keys; set one of them, such as '{in_group[0]}'")
    meant = _meant(key)
    keys = meant.keys.split() if isinstance(meant, Synonym) else meant
    if isinstance(meant, Synonym) and meant.note:
        hint = f": {meant.note} {_listed(keys, 'and')}".rstrip()
    elif keys:
        hint = f"; did you mean {_listed(keys, 'or')}?"
    else:
        hint = f"; {_all_there_is(key.rpartition('.')[0])}"
    return UserError(f"unknown key '{key}'{hint}")


def nearest_choice(key: str, value: object, choices: Sequence[object]) -> str | None:
    """Returns the choice that a user may have meant, or None if no choice is similar.

    Args:
        key: key whose value is wrong, such as "data.source".
        value: the wrong value.
        choices: what the key accepts.
    """
    word = str(value).lower()
    for choice, names in CHOICES.get(key, {}).items():
        if word in names.split():
            return choice
    return closest(word, map(str, choices))


def _meant(key: str) -> Synonym | list[str]:
    """Finds what a user may have meant by the wrong key `key`.

    Returns:
        A `Synonym` if other programs use this name. Otherwise, a list of similar keys, or a list
        with one similar group. The list is empty if nothing is similar.
    """
    *groups, last = key.lower().replace("-", "_").split(".")
    in_group = _in_group(groups)
    # "optimizer.beta1" is looked up as "optimizer_beta1" and as "beta1".
    for i in range(len(groups) + 1):
        name = "_".join([*groups[i:], last])
        if name in _SYNONYMS:
            return _SYNONYMS[name]
        if same := [known for known in _KEYS if known.replace(".", "_") == name]:
            return same
        # The right name in the wrong group is a likelier mistake than a typing error.
        if same := [known for known in _KEYS if _name(known) == name]:
            return [known for known in same if known in in_group] or same
    for group in groups:  # Such as the group of "wandb.project".
        if group in _SYNONYMS:
            return _SYNONYMS[group]
    if above := [known for known in _KEYS if key.startswith(f"{known}.")]:
        return above
    return (
        _with_words(last, in_group if groups else _KEYS)
        or _spelt_like(last, in_group)
        or _spelt_like(last, _KEYS)
        or ([] if groups else _group_spelt_like(key))
    )


def _in_group(groups: Sequence[str]) -> list[str]:
    """Returns the keys of the groups that `groups` names. The names may be misspelt."""
    named = [group for name in groups for group in _group_spelt_like(name)]
    return [key for key in _KEYS if key.partition(".")[0] in named]


def _with_words(name: str, keys: Sequence[str]) -> list[str]:
    """Returns the keys that contain all words of a name, such as "percentile".

    The list is empty if the name is very short, or if too many keys contain its words.
    """
    words = set(name.split("_"))
    found = [key for key in keys if words <= set(_name(key).split("_"))]
    return found if len(name) >= _LEAST_LETTERS and len(found) <= _MOST_KEYS else []


def _spelt_like(name: str, keys: Sequence[str]) -> list[str]:
    """Returns the keys whose last part is spelt almost like `name`."""
    nearest = closest(name, map(_name, keys))
    return [key for key in keys if _name(key) == nearest]


def _group_spelt_like(name: str) -> list[str]:
    """Returns a list with the group that is spelt almost like `name`, or an empty list."""
    nearest = closest(name, {key.partition(".")[0] for key in _KEYS if "." in key})
    return [nearest] if nearest else []


def _all_there_is(group: str) -> str:
    """Returns a clause that lists the keys of a group, or all groups if there is no such group."""
    if in_group := [_name(key) for key in _KEYS if key.startswith(f"{group}.")]:
        return f"'{group}' has {', '.join(in_group)}"
    groups = dict.fromkeys(key.partition(".")[0] for key in _KEYS if "." in key)
    return f"keys are in the groups {', '.join(groups)}"


def _name(key: str) -> str:
    """Returns the last part of a key, such as "steps" for "train.steps"."""
    return key.rpartition(".")[-1]


def _listed(keys: Sequence[str], word: str) -> str:
    """Returns a list for a sentence, such as "'data.height' or 'data.width'"."""
    quoted = [f"'{key}'" for key in keys]
    return f" {word} ".join(filter(None, [", ".join(quoted[:-1]), *quoted[-1:]]))
