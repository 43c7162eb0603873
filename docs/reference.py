#!/usr/bin/env python3
"""Writes docs/reference.md and docs/reference/<floor>.md: every public name of the headers, its signature and the first
sentence of its comment. Run it after changing a public header:

    docs/reference.py            writes the pages
    docs/reference.py --check    fails if a page would change; the tests call this
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include"
FLOORS = {
    "core": "Scalars, views, linear operators, dense products, random numbers, errors, workspace",
    "factor": "Decompositions, sketched and weighted factorizations, rank rules",
    "quant": "Quantized formats",
    "prune": "Magnitude pruning",
    "lora": "Adapters: kinds, inits, merging, combination, conversion, training",
    "laser": "Edits, scores, searches and evidence",
    "io": "Files: containers, PEFT, other formats, models, checkpoints",
}
WIDTH = 120


def matching(text, at):
    """The index after the bracket that closes the one at `at`; strings, characters and comments are skipped."""
    pairs = {"{": "}", "(": ")", "[": "]"}
    depth = 0
    while at < len(text):
        skipped = skip_literal(text, at)
        if skipped != at:
            at = skipped
            continue
        if text[at] in pairs:
            depth += 1
        elif text[at] in pairs.values():
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    raise ValueError("a bracket does not close")


def skip_literal(text, at):
    """The index after the comment, string or character that starts at `at`, or `at`."""
    if text.startswith("//", at):
        end = text.find("\n", at)
        return len(text) if end < 0 else end
    if text.startswith("/*", at):
        return text.index("*/", at) + 2
    if text.startswith('R"', at):
        mark = text[at + 2 : text.index("(", at)]
        return text.index(")" + mark + '"', at) + len(mark) + 2
    if text[at] == '"' or (text[at] == "'" and not (at and text[at - 1].isalnum())):
        end = at + 1
        while text[end] != text[at]:
            end += 2 if text[end] == "\\" else 1
        return end + 1
    return at


def declarations(text):
    """(comment, declaration, body or None, trailing comment) of everything at the top of `text`."""
    at = 0
    comment = []
    while at < len(text):
        if text[at].isspace():
            if text.startswith("\n\n", at):
                comment = []
            at += 1
            continue
        if text[at] == "#":
            end = text.find("\n", at)
            while end > 0 and text[end - 1] == "\\":
                end = text.find("\n", end + 1)
            at = len(text) if end < 0 else end
            continue
        if text.startswith("//", at):
            end = text.find("\n", at)
            line = text[at : end if end >= 0 else len(text)]
            comment = comment + [line[3:].strip()] if line.startswith("///") and not line.startswith("///<") else []
            at = len(text) if end < 0 else end
            continue
        label = re.compile(r"(public|private|protected):").match(text, at)
        if label:
            yield [], label.group(0), None, ""
            at = label.end()
            continue
        start = at
        body = None
        while True:
            skipped = skip_literal(text, at)
            if skipped != at:
                at = skipped
                continue
            c = text[at]
            if c == ";":
                declaration = text[start:at]
                at += 1
                break
            if c in "([":
                at = matching(text, at)
                continue
            if c == "{":
                end = matching(text, at)
                head = text[start:at].strip()
                is_value = re.search(r"=\s*$", head) or (
                    re.search(r"[\w>]$", head) and not re.search(r"\b(const|noexcept|override|final|try)$", head)
                    and not head.startswith(("struct", "class", "enum", "namespace", "template", "concept"))
                    and ")" not in head)
                if is_value or re.match(r"(template[^;{]*\n)?\s*(inline )?(constexpr )?.*concept\b", head) or " = requires" in head:
                    at = end
                    continue
                body = text[at + 1 : end - 1]
                declaration = text[start:at]
                at = end
                if at < len(text) and re.match(r"\s*;", text[at:]):
                    at = text.index(";", at) + 1
                break
            at += 1
        end = text.find("\n", at)
        rest = text[at : end if end >= 0 else len(text)]
        trailing = rest.split("///<", 1)[1].strip() if "///<" in rest else ""
        while trailing and end >= 0:  # a trailing comment may go on
            after = text.find("\n", end + 1)
            line = text[end + 1 : after if after >= 0 else len(text)]
            if not line.strip().startswith("///<"):
                break
            trailing += " " + line.strip()[4:].strip()
            end = after
        yield comment, declaration.strip(), body, trailing
        comment = []


def sentence(lines):
    """The first sentence of a comment."""
    text = []
    for line in lines:
        if not line or line.startswith("\\"):
            break
        text.append(line)
    joined = re.sub(r"\s+", " ", " ".join(text)).strip()
    joined = re.split(r"\s\\(?:pre|return|cost|note)\b", joined)[0]
    found = re.match(r"(.*?\.)(?= [^a-z.]|$)", joined)
    return found.group(1) if found else joined


def tidy(declaration):
    """A declaration as a reader needs it, on one line."""
    d = re.sub(r"//[^\n]*", "", declaration)
    d = re.sub(r"\s+", " ", d)
    d = re.sub(r"\[\[[^\]]*\]\]|\bLOWRANK_(API|BODY|INLINE)\b|\binline\b", "", d)
    while True:  # std::type_identity_t<X> is X that is not deduced
        found = re.search(r"std::type_identity_t<", d)
        if not found:
            break
        depth, end = 1, found.end()
        while depth:
            depth += {"<": 1, ">": -1}.get(d[end], 0)
            end += 1
        d = d[: found.start()] + d[found.end() : end - 1] + d[end:]
    d = without_requirements(re.sub(r"\s+", " ", d).strip())
    d = re.sub(r" = \{\}$", "", d)
    depth = 0
    for i, c in enumerate(d):  # member initializers
        depth += {"(": 1, ")": -1, "{": 1, "}": -1}.get(c, 0)
        if c == ":" and depth == 0 and i and d[i - 1] != ":" and d[i + 1 : i + 2] != ":" and ")" in d[:i]:
            return d[:i].strip()
    return d


def without_requirements(d):
    """A template without its requires-clause."""
    found = re.match(r"template <.*?> requires ?!?(?=[\w(])", d)
    while found:
        at = found.end()
        while True:
            at = re.compile(r"[\w:!]*").match(d, at).end()
            while at < len(d) and d[at] in "<(":
                at = closing(d, at)
            operator = re.compile(r" ?(&&|\|\|) ?").match(d, at)
            if not operator:
                break
            at = operator.end()
            if d.startswith("requires(", at):
                at = closing(d, at + len("requires"))
                at = matching(d, d.index("{", at))
        head = d[: d.index(" requires", 0, found.end())]
        return head + " " + d[at:].strip()
    return d


def closing(d, at):
    """The index after the `>` or `)` that closes the bracket at `at`."""
    pairs = {"<": 1, "(": 1, "{": 1, ">": -1, ")": -1, "}": -1}
    depth = 0
    while True:
        depth += 0 if d.startswith("->", at - 1) else pairs.get(d[at], 0)
        at += 1
        if depth == 0:
            return at


def wrapped(text, indent):
    """Comment lines of at most WIDTH columns."""
    words, lines = text.split(" "), []
    line = indent + "//"
    for word in words:
        if len(line) + 1 + len(word) > WIDTH and line.strip() != "//":
            lines.append(line)
            line = indent + "//"
        line += " " + word
    return lines + [line]


def folded(code, indent):
    """A declaration with its template parameters on a line of their own, folded at commas."""
    lines = []
    if code.startswith("template <") and len(indent + code) > WIDTH:
        at = closing(code, len("template "))
        lines, code = [indent + code[:at]], code[at:].strip()
    if len(indent + code) <= WIDTH:
        return lines + [indent + code]
    line = indent
    for piece in re.split(r"(?<=, )", code):
        if len(line) + len(piece) > WIDTH and line.strip():
            lines.append(line.rstrip())
            line = indent + "    "
        line += piece
    return lines + [line.rstrip()]


def name_of(declaration):
    d = re.sub(r"\btemplate <.*?>(?=\s*(struct|class|\w))", "", declaration) if declaration.startswith("template") else declaration
    found = re.search(r"\b(?:struct|class|enum class|concept|using)\s+(\w+)", declaration)
    if found:
        return found.group(1)
    found = re.search(r"(operator\S+|~?\w+)\s*\(", d)
    if found:
        return found.group(1)
    found = re.search(r"(\w+)\s*(?:=|\[|$)", d)
    return found.group(1) if found else ""


def members(body, is_class, indent):
    """The public members of a class as lines."""
    lines = []
    public = not is_class
    for comment, declaration, inner, trailing in declarations(body):
        if declaration in ("public:", "private:", "protected:"):
            public = declaration == "public:"
        d = tidy(declaration)
        if not public or not d or d.endswith(":") or "= delete" in d or "= default" in d:
            continue
        if d.startswith(("friend", "static_assert")) or re.search(r"\bvirtual\b|~\w", d) or "detail::" in d.split("(")[0]:
            continue
        text = sentence(comment) or sentence([trailing])
        if re.match(r"(struct|class)\b", d) and inner is not None:
            lines += wrapped(text, indent) if text else []
            lines += [indent + d + " {"] + members(inner, d.startswith("class"), indent + "    ") + [indent + "};"]
            continue
        code = d + ";"
        if text and len(indent + code + "  // " + text) <= WIDTH:
            lines.append(f"{indent}{code}  // {text}")
        else:
            lines += wrapped(text, indent) if text else []
            lines += folded(code, indent)
    return lines


def entries(header):
    """(name, lines) of every public entity of a header."""
    text = header.read_text()
    start = re.search(r"(?m)^namespace lowrank::inline LOWRANK_ABI \{$", text)
    while start:
        end = matching(text, start.end() - 1)
        yield from of_namespace(text[start.end() : end - 1])
        start = re.compile(r"(?m)^namespace lowrank::inline LOWRANK_ABI \{$").search(text, end)


def of_namespace(text):
    for comment, declaration, body, trailing in declarations(text):
        d = tidy(declaration)
        if d.startswith("namespace"):
            continue  # detail, mostly
        name = name_of(d)
        is_type = re.match(r"(template <.*> )?(requires .*? )?(struct|class|enum class)\b", d)
        if not name or d.startswith(("extern template", "static_assert", "template struct", "template class")):
            continue
        if is_type and (body is None or re.search(r"(struct|class) \w+<", d)):
            continue  # a forward declaration or a specialization
        if name.startswith("operator") or "detail::" in d.split("(")[0].split(">")[-1]:
            continue
        if re.match(r"template [^<]", d) or d.endswith("= delete") or re.search(r"\) -> \w+<", d):
            continue  # an instantiation, a deleted function, a deduction guide
        lines = wrapped(sentence(comment) or sentence([trailing]), "") if comment or trailing else []
        if is_type and "enum class" in d:
            lines += folded(d + " {", "")
            for value in re.sub(r"\n *///< ", " ", body).split("\n"):
                value, _, text = value.partition("///<")
                if value.strip() and not value.strip().startswith("//"):
                    lines += folded(value.strip() + (f"  // {text.strip()}" if text else ""), "    ")
            lines.append("};")
        elif is_type:
            inner = members(body, re.match(r"(template <.*?> )?(requires .*? )?class\b", d) is not None, "    ")
            lines += folded(d + " {", "") + inner + ["};"] if inner else [d + " {};"]
        else:
            lines += folded(re.sub(r"(concept \w+) = .*requires.*", r"\1", d) + ";", "")
        yield name, lines


def first_sentence_of_file(text):
    found = re.search(r"/// \\file\n((?:///[^\n]*\n)+)", text)
    lines = [line[3:].strip() for line in found.group(1).split("\n")[:-1]] if found else []
    return sentence(lines)


def prose(text):
    return [line[3:] for line in wrapped(text, "")]


def pages():
    index = {}
    made = {}
    for floor, title in FLOORS.items():
        out = [f"# Reference: {floor}", "", f"{title}.", "", "Written by [reference.py](../reference.py) from the headers.", ""]
        if floor == "io":
            out += ["Needs nlohmann/json.", ""]
        headers = sorted(h for h in (INCLUDE / "lowrank" / floor).rglob("*.hpp") if "detail" not in h.parts)
        for header in headers:
            path = header.relative_to(INCLUDE).as_posix()
            found = list(entries(header))
            out += [f"## {path[len('lowrank/'):]}", ""]
            out += [*prose(first_sentence_of_file(header.read_text())), "", "```c++", f"#include <{path}>", ""]
            for name, lines in found:
                out += lines + [""]
                index.setdefault(name, set()).add((floor, path[len("lowrank/") :]))
            while out[-1] == "":
                out.pop()
            out += ["```", ""]
        made[ROOT / "docs/reference" / f"{floor}.md"] = "\n".join(out).rstrip() + "\n"
    top = ["# Reference", "",
           "Every public name with its signature and the first sentence of its comment; the header says the rest: preconditions, errors,",
           "cost. Written by [reference.py](reference.py). All names are in `namespace lowrank`.", "",
           "| page | holds |", "|---|---|"]
    top += [f"| [{floor}](reference/{floor}.md) | {title} |" for floor, title in FLOORS.items()]
    top += ["", "## Names", "", "| name | header |", "|---|---|"]
    for name in sorted(index, key=str.lower):
        where = ", ".join(f"[{path}](reference/{floor}.md#{anchor(path)})" for floor, path in sorted(index[name]))
        top.append(f"| `{name}` | {where} |")
    made[ROOT / "docs/reference.md"] = "\n".join(top) + "\n"
    return made


def anchor(heading):
    return re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-")


def main():
    stale = []
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            stale.append(path.relative_to(ROOT).as_posix())
            if "--check" not in sys.argv:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    if stale and "--check" in sys.argv:
        print("not up to date; run docs/reference.py:", *stale)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
